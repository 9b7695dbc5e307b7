"""The commands that need no engine, as a user meets them."""

import csv
import io
import json
from pathlib import Path

import polars as pl
import pytest


@pytest.fixture
def lake(tracer, interchange):
    assert tracer("import", *interchange(), "--run-id", "one").exit_code == 0
    return "lake"


def test_import_stores_rows_choices_by_weight_and_labels(tracer, lake):
    found = tracer(
        "sql",
        "select * from choices order by request_id, position, layer_id, rank",
        "--format",
        "json",
    )
    rows = json.loads(found.stdout)
    assert len(rows) == 2 * 3 * 2 * 2
    assert rows[0] == {
        "run_id": "one",
        "request_id": "a",
        "domain": "law",
        "phase": "prompt",
        "position": 0,
        "layer_id": 1,
        "rank": 1,
        "expert_id": 1,
        "gate_weight": 0.5,
    }
    labels = json.loads(
        tracer(
            "sql", "select labels['language'] l from requests order by 1", "--format", "json"
        ).stdout
    )
    assert labels == [{"l": "de"}, {"l": "en"}]


def test_import_keeps_unknown_keys_and_float32(tracer, lake):
    (run,) = json.loads(tracer("runs", "--format", "json").stdout)
    assert json.loads(run["options"]) == {"note": "x"}
    assert (run["weight_precision"], run["status"], run["num_requests"]) == ("f32", "complete", 2)
    assert run["moe_layers"] == [1, 3]


def test_importing_again_changes_nothing(tracer, interchange, lake):
    assert tracer("import", *interchange(), "--run-id", "one").exit_code == 0
    assert pl.read_delta("lake/routing").height == 12
    assert tracer("import", *interchange(), "--run-id", "two").exit_code == 0
    assert pl.read_delta("lake/routing").height == 24


def test_other_data_under_the_same_name_is_refused(tracer, interchange, lake):
    other = interchange("other", routing={"token_id": [7] * 12})
    tracer("import", *other, "--run-id", "one").failed(2, "other data", "--run-id")
    assert pl.read_delta("lake/routing").height == 12


@pytest.mark.parametrize(
    ("changes", "exit_code", "words"),
    [
        ({"run": {"top_k": None}}, 2, "lacks top_k"),
        ({"run": {"moe_layers": []}}, 2, "moe_layers"),
        ({"run": {"num_experts": 1}}, 2, "top_k <= num_experts"),
        ({"run": {"moe_layers": [1, 2]}}, 3, "every layer"),
        ({"run": {"top_k": 3}}, 3, "top_k = 3"),
        ({"run": {"run_id": "../../evil"}}, 2, "cannot be used"),
        ({"requests": {"request_id": ["a", "a"]}}, 3, "there twice"),
        ({"requests": {"request_id": ["a", "c"]}}, 3, "routing has request 'b'"),
        ({"requests": {"num_prompt_tokens": [9, 2]}}, 3, "9 prompt tokens"),
        ({"requests": {"domain": [None, "art"]}}, 2, "domain has empty values"),
        ({"routing": {"position": [0] * 12}}, 3, "each position from 0 once"),
        ({"routing": {"expert_ids": [[0, 4]] * 12}}, 3, "expert id 4"),
        ({"routing": {"expert_ids": [[1, 1]] * 12}}, 3, "same expert twice"),
        ({"routing": {"gate_weights": [[0.5, float("nan")]] * 12}}, 3, "not a finite number"),
        ({"routing": {"token_id": ["x"] * 12}}, 2, "token_id is not int32"),
        ({"routing": {"position": [2**40] * 12}}, 2, "position is not int32"),
    ],
)
def test_files_that_do_not_fit_are_refused(tracer, interchange, changes, exit_code, words):
    tracer("import", *interchange(**changes)).failed(exit_code, words)
    assert not Path("lake").exists()


def test_a_file_that_is_not_parquet_is_refused(tracer, interchange, tmp_path):
    words = interchange()
    (tmp_path / "in" / "routing.parquet").write_bytes(b"PAR1 but not really")
    tracer("import", *words).failed(2, "as Parquet")
    assert not (tmp_path / "lake").exists()


@pytest.mark.parametrize(
    "words",
    [["runs"], ["audit"], ["report"], ["sql", "select 1"], ["sql", "--print-views"]],
)
def test_what_is_not_a_lake_is_refused_and_not_made(tracer, tmp_path, words):
    tracer(*words).failed(2, "lake is not a trace lake", "TRACER_LAKE")
    assert list(tmp_path.iterdir()) == []


def test_the_lake_comes_from_the_environment(tracer, lake, tmp_path, monkeypatch):
    monkeypatch.setenv("TRACER_LAKE", str(tmp_path / "lake"))
    monkeypatch.chdir("/")
    assert tracer("runs").exit_code == 0


def test_an_unknown_run_is_named_with_those_there(tracer, interchange, lake):
    tracer("audit", "--run", "nope").failed(2, "no run 'nope'", "it has: one")
    tracer("import", *interchange(), "--run-id", "two")
    tracer("audit").failed(2, "2 runs and none was named: one, two", "--run")
    tracer("report").failed(2, "--run")


@pytest.mark.parametrize(
    "words",
    [
        ["audit", "--mode", "magic"],
        ["audit", "--min-presence", "0"],
        ["audit", "--bogus"],
        ["sql"],
        ["sql", "select 1", "--print-views"],
        ["sql", "select 1", "--format", "parquet"],
        ["no-such-command"],
        ["import"],
    ],
)
def test_usage_errors_look_like_all_errors(tracer, lake, words):
    tracer(*words).failed(2, "--help")


@pytest.mark.parametrize(
    "query",
    [
        "selec 1",
        "select nothing from routing",
        "select * from read_csv('/etc/passwd')",
        "copy routing to '/tmp/stolen.csv'",
        "drop view routing",
        "select 1; select 2",
        "install httpfs",
    ],
)
def test_sql_that_fails_or_reaches_out_is_refused(tracer, lake, query):
    tracer("sql", query).failed(2)


def test_sql_writes_files_whole(tracer, lake, tmp_path):
    done = tracer("sql", "select 1 as x", "--format", "parquet", "--output", "x.parquet")
    assert (done.exit_code, done.stdout) == (0, "")
    assert pl.read_parquet("x.parquet").to_dicts() == [{"x": 1}]
    table = tracer("sql", "select [1, 2] as x, 'a,b' as y", "--format", "csv")
    assert list(csv.reader(io.StringIO(table.stdout))) == [["x", "y"], ["[1, 2]", "a,b"]]


def test_printed_views_work_in_a_plain_duckdb(tracer, lake, tmp_path, monkeypatch):
    import duckdb

    views = tracer("sql", "--print-views").stdout
    monkeypatch.chdir("/")
    con = duckdb.connect()
    con.execute(views)
    assert con.execute("select count(*) from choices").fetchall() == [(24,)]
    con.close()


def test_audit_formats_tell_the_same(tracer, lake):
    """In both layers law lists 1, 0 and art lists 2, 0: only 0 is in both, at rank 2 (2, 0)."""
    layers = json.loads(tracer("audit", "--format", "json").stdout)
    assert [layer["layer_id"] for layer in layers] == [1, 3]
    assert [layer["committee"] for layer in layers] == [[0], [0]]
    assert {(layer["num_domains"], layer["rank_cutoff"], layer["num_experts"])
            for layer in layers} == {(2, 2, 4)}  # fmt: skip
    rows = list(csv.DictReader(io.StringIO(tracer("audit", "--format", "csv").stdout)))
    assert [(row["layer_id"], row["committee"]) for row in rows] == [("1", "0"), ("3", "0")]
    assert "equal-weight" in tracer("audit").stdout


def test_reference_csv_has_the_authors_header(tracer, lake):
    """Layers 1 and 3 print as 0 and 2, as their script does where the smallest layer is 1."""
    lines = tracer("audit", "--mode", "reference", "--format", "csv").stdout.splitlines()
    assert lines[0] == "Layer,Committee,Size,Avg_mu,Avg_sigma_sq,Coverage,Ratio"
    assert [line.split(",")[0] for line in lines[1:]] == ["0", "2"]


def test_reference_mode_has_one_token_scope(tracer, lake):
    tracer("audit", "--mode", "reference", "--tokens", "prompt").failed(2, "last prompt token")


def test_domains_can_be_regrouped(tracer, lake, tmp_path):
    (tmp_path / "d.toml").write_text('[domains]\n"all" = ["law", "art"]\n')
    (layer, _) = json.loads(tracer("audit", "--domains", "d.toml", "--format", "json").stdout)
    assert (layer["num_domains"], layer["jaccard_mean"]) == (1, None)
    tracer("audit", "--domains", "missing.toml").failed(2, "cannot read")


def test_report_is_written_whole_or_not_at_all(tracer, lake, tmp_path):
    done = tracer("report", "--output", "out/report.html")
    assert done.exit_code == 0
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.startswith(("<!doctype html>", "<!DOCTYPE html>"))
    (tmp_path / "file").write_text("x")
    tracer("report", "--output", "file/report.html").failed(2, "cannot write")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["report.html"]


def test_help_and_version(tracer):
    assert "demo-model" in tracer("--help").stdout
    assert tracer("--version").stdout.startswith("tracer, version ")
