"""Prompt tokens without rows, and requests that are in `requests` alone: what counts, what is said.

The lakes are written by the store's own writers.
"""

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest

from tracer.analysis.audit import audit
from tracer.analysis.sql import connect, run_query
from tracer.api import open_lake
from tracer.cli import run
from tracer.errors import InputError
from tracer.records import AuditDomain
from tracer.report.audit_text import render_table
from tracer.store.lake import Lake
from tracer.store.run_writer import writing_run
from tracer.store.shard import ShardWriter
from tracer.store.shard_rows import ShardRows, TracedRequest

RUN = {
    "run_id": "r",
    "model": "m",
    "engine": "test",
    "num_experts": 4,
    "top_k": 1,
    "moe_layers": [0],
    "weight_precision": "f32",
    "prefix_caching": True,
    "tracer_version": "0",
}
REFUSED = (
    "tokens {!r} of run 'r' are not whole: 3 of 12 prompt tokens were answered from the prefix"
    " cache and have no routing rows"
)


def request(request_id, domain, prompt, generated=(), *, cached=0, status="complete"):
    """``prompt`` and ``generated``: the expert of every token; its gate weight is always 0.5."""
    return {
        "request_id": request_id,
        "sample_index": int(request_id.partition("#")[2] or 0),
        "row_id": request_id.partition("#")[0],
        "domain": domain,
        "labels": {},
        "status": status,
        "num_prompt_tokens": len(prompt),
        "num_generated_tokens": len(generated) + 1,
        "cached_prefix_tokens": cached,
        "finish_reason": None,
        "prompt_digest": "",
        "experts": [*prompt, *generated],
    }


def shards(lake, requests):
    """The shard files of the complete requests; a cached prefix has no rows."""
    complete = [row for row in requests if row["status"] == "complete"]
    spans = [range(row["cached_prefix_tokens"], len(row["experts"])) for row in complete]
    chosen = [row["experts"][at] for row, span in zip(complete, spans, strict=True) for at in span]
    experts = np.array(chosen, dtype=np.int16).reshape(-1, 1, 1)
    traced = [
        TracedRequest(
            row["request_id"],
            row["domain"],
            row["num_prompt_tokens"],
            np.zeros(len(row["experts"]) + 1, dtype=np.int32),
            len(span),
        )
        for row, span in zip(complete, spans, strict=True)
    ]
    positions = np.array([at for span in spans for at in span], dtype=np.int32)
    rows = ShardRows((0,), traced, positions, experts, np.full_like(experts, 0.5, dtype=np.float32))
    writer = ShardWriter(lake.storage, "r", num_experts=4, precision="f32")
    return writer.write("000000-w0", rows)


@pytest.fixture
def lake_of(tmp_path):
    def make(*requests):
        lake = Lake.create(tmp_path / "lake")
        with writing_run(lake, RUN) as target:
            rows = [{k: v for k, v in row.items() if k != "experts"} for row in requests]
            target.commit(0, shards(lake, requests), rows)
        return lake

    return make


@pytest.fixture
def lake(lake_of):
    """Law: two samples of one row, the second with 3 of its 4 prompt tokens cached; art: one.

    Three further requests of law have no rows at all.
    """
    return lake_of(
        request("x", "law", [0, 0, 1, 1], [2]),
        request("x#1", "law", [0, 0, 1, 1], [2], cached=3),
        request("y", "art", [3, 3, 3, 1], [2]),
        request("s", "law", [0] * 9, status="skipped"),
        request("a", "law", [0] * 7, [0] * 5, cached=4, status="aborted"),
        request("u", "law", [0] * 5, [0] * 5, cached=2, status="uncaptured"),
    )


@pytest.fixture
def tracer(lake, capfd, monkeypatch):
    monkeypatch.chdir(Path(lake.location).parent)
    monkeypatch.delenv("TRACER_LAKE", raising=False)

    def call(*words):
        capfd.readouterr()
        return run(list(words)), *capfd.readouterr()

    return call


@pytest.mark.parametrize("tokens", [None, "prompt", "all"])
def test_scopes_with_prompt_tokens_are_refused_with_the_numbers(lake, tokens):
    """Complete requests have 3 * 4 prompt tokens, of which 3 are cached; others do not count."""
    with pytest.raises(InputError) as refused:
        audit(lake, tokens=tokens)
    assert str(refused.value) == REFUSED.format(tokens or "prompt")
    for way_out in ("--tokens generated", "--tokens last-prompt", "--allow-missing-tokens"):
        assert way_out in refused.value.hint
    assert refused.value.exit_code == 2
    with pytest.raises(InputError, match="3 of 12 prompt tokens"):
        audit(lake, tokens=tokens, domains={"law": "all", "art": "all"})
    with pytest.raises(InputError, match="3 of 12 prompt tokens"):
        open_lake(lake.location).audit(tokens=tokens)


def contributions(found):
    return {(c.domain, c.expert_id): pytest.approx(c.contribution) for c in found.contributions}


def test_whole_scopes_are_audited(lake):
    """Both samples of the row count; so does the last prompt token of the cached prompt."""
    last = audit(lake, tokens="last-prompt")
    assert last.domains == (AuditDomain("art", 1, 1, 4, 0), AuditDomain("law", 2, 2, 8, 0))
    assert contributions(last) == {("art", 1): 0.5, ("law", 1): 0.5}
    generated = audit(lake, tokens="generated")
    assert generated.domains == (AuditDomain("art", 1, 1, 4, 0), AuditDomain("law", 2, 2, 8, 0))
    assert contributions(generated) == {("art", 2): 0.5, ("law", 2): 0.5}
    assert audit(lake, mode="reference").domains == last.domains
    assert generated.missing_prompt_share == 0
    assert "prefix cache" not in render_table(generated)


@pytest.mark.parametrize("domains", [None, {"law": "Law"}])
def test_what_is_allowed_counts_the_rows_there_are(lake, domains):
    """Law has 5 prompt tokens with rows, 2 of expert 0 and 3 of expert 1; art 4, 3 of them of 3.

    Renaming sums over requests instead of shards, with the same outcome.
    """
    law = "Law" if domains else "law"
    found = audit(lake, domains=domains, allow_missing_tokens=True)
    assert set(found.domains) == {AuditDomain("art", 1, 4, 4, 0), AuditDomain(law, 2, 5, 8, 3)}
    assert (found.num_prompt_tokens, found.num_missing_prompt_tokens) == (12, 3)
    assert found.missing_prompt_share == 0.25
    assert contributions(found) == {
        (law, 0): 0.2,
        (law, 1): 0.3,
        ("art", 3): 0.375,
        ("art", 1): 0.125,
    }
    every = audit(lake, domains=domains, tokens="all", allow_missing_tokens=True)
    assert set(every.domains) == {AuditDomain("art", 1, 5, 4, 0), AuditDomain(law, 2, 7, 8, 3)}


def test_queries_do_not_count_requests_without_rows(lake):
    """Five prompt tokens of law from requests and from choices; three requests are complete."""
    con = connect(lake)
    for name, binds in (("eci_by_request", {"domains": "{}"}), ("eci_from_choices", {})):
        rows = run_query(con, name, run_id="r", tokens="prompt", **binds).rows()
        assert {row[:5] for row in rows if row[1] == "law"} == {
            (0, "law", 0, 2, 5),
            (0, "law", 1, 3, 5),
        }
    counted = run_query(con, "domain_requests", run_id="r", tokens="all", domains="{}")
    assert counted.rows() == [("art", 1, 0, 4, 0), ("law", 2, 0, 8, 3)]
    assert run_query(con, "request_status", run_id="r").rows() == [
        ("aborted", 1),
        ("complete", 3),
        ("skipped", 1),
        ("uncaptured", 1),
    ]


def test_a_cache_that_hit_only_what_does_not_count_leaves_the_audit_whole(lake_of):
    """An aborted request, an uncaptured one, and one without a domain beside those with one."""
    found = audit(
        lake_of(
            request("x", "law", [0, 1]),
            request("y", "art", [1, 1]),
            request("z", "none", [1, 1], cached=1),
            request("a", "law", [0] * 7, cached=4, status="aborted"),
            request("u", "law", [0] * 5, cached=2, status="uncaptured"),
        )
    )
    assert found.domains == (AuditDomain("art", 1, 2, 2, 0), AuditDomain("law", 1, 2, 2, 0))
    assert (found.num_unlabelled, found.num_missing_prompt_tokens) == (1, 0)
    assert found.requests_by_status == {"aborted": 1, "complete": 3, "uncaptured": 1}


def test_a_run_of_uncaptured_requests_has_nothing_to_audit(lake_of):
    with pytest.raises(InputError, match="no complete requests"):
        audit(lake_of(request("u", "law", [0] * 5, status="uncaptured")))


def test_the_commands_refuse_and_write_nothing(tracer, lake):
    for command in ("audit", "report"):
        code, out, told = tracer(command)
        assert (code, out) == (2, "")
        assert f"Error: {REFUSED.format('prompt')}\n" in told
        assert "--allow-missing-tokens" in told.splitlines()[-1]
    assert not (Path(lake.location).parent / "report.html").exists()
    code, _, told = tracer("audit", "--tokens", "all")
    assert code == 2
    assert REFUSED.format("all") in told
    assert "--tokens" not in tracer("report")[2]


def test_every_output_says_the_share(tracer, lake):
    allowed = ("audit", "--allow-missing-tokens")
    code, table, _ = tracer(*allowed)
    assert code == 0
    lines = table.splitlines()
    assert "requests that do not count: 1 aborted, 1 skipped, 1 uncaptured" in lines
    assert ("3 of 12 prompt tokens (25.0 %) have no rows: answered from the prefix cache") in lines
    at = lines.index("domain  requests  tokens  missing")
    assert [line.split() for line in lines[at + 1 : at + 3]] == [
        ["art", "1", "4", "0"],
        ["law", "2", "5", "3"],
    ]
    (layer,) = json.loads(tracer(*allowed, "--format", "json")[1])
    assert layer["requests_by_status"] == {
        "aborted": 1,
        "complete": 3,
        "skipped": 1,
        "uncaptured": 1,
    }
    assert (layer["num_prompt_tokens"], layer["num_missing_prompt_tokens"]) == (12, 3)
    assert layer["missing_prompt_share"] == 0.25
    (row,) = csv.DictReader(io.StringIO(tracer(*allowed, "--format", "csv")[1]))
    assert row["missing_prompt_share"] == "0.25"


def test_the_page_says_the_share_where_prompt_tokens_count(tracer, lake):
    """Of its three audits only that of prompt tokens lacks any."""
    assert tracer("report", "--allow-missing-tokens")[0] == 0
    page = (Path(lake.location).parent / "report.html").read_text()
    assert "counting every prompt token, save 3 of 12 prompt tokens (25.0\xa0%)" in page
    assert page.count("3 of 12 prompt tokens (25.0\xa0%) have no routing rows") == 1
    assert page.count('<th scope="col">Without rows</th>') == 1
    assert "<bdi>law</bdi></th><td>2</td><td>5</td><td>3</td></tr>" in page
    assert "3 complete; not counted: 1 aborted, 1 skipped, 1 uncaptured" in page


def test_runs_counts_requests_by_status(tracer):
    code, table, _ = tracer("runs")
    assert code == 0
    assert "3 (1 aborted, 1 skipped, 1 uncaptured)" in table
    (found,) = json.loads(tracer("runs", "--format", "json")[1])
    assert found["num_requests"] == 6
    assert found["requests_by_status"] == {
        "aborted": 1,
        "complete": 3,
        "skipped": 1,
        "uncaptured": 1,
    }
