"""Requests without a domain do not count as one, unless there is nothing else."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tracer.analysis.audit import audit
from tracer.report.audit_text import render_table
from tracer.store.interchange import import_run
from tracer.store.lake import Lake


@pytest.fixture
def lake_with(tmp_path):
    """Lake of one-token requests, one per (domain, expert)."""

    def make(*requests):
        names = [f"q{n}" for n in range(len(requests))]
        pq.write_table(
            pa.table(
                {
                    "request_id": names,
                    "position": [0] * len(names),
                    "token_id": [5] * len(names),
                    "layer_id": [0] * len(names),
                    "expert_ids": [[expert] for _, expert in requests],
                    "gate_weights": [[0.5]] * len(names),
                }
            ),
            tmp_path / "routing.parquet",
        )
        pq.write_table(
            pa.table(
                {
                    "request_id": names,
                    "domain": [domain for domain, _ in requests],
                    "num_prompt_tokens": [1] * len(names),
                }
            ),
            tmp_path / "requests.parquet",
        )
        (tmp_path / "run.json").write_text(
            '{"model": "m", "num_experts": 4, "top_k": 1, "moe_layers": [0]}'
        )
        files = {name: tmp_path / f"{name}.parquet" for name in ("routing", "requests")}
        import_run(tmp_path / "lake", run=tmp_path / "run.json", **files)
        return Lake.open(tmp_path / "lake")

    return make


def test_unlabelled_requests_are_left_out_and_counted(lake_with):
    """Expert 1 is first in law and art; what the unlabelled request chose changes nothing."""
    found = audit(lake_with(("law", 1), ("art", 1), ("none", 2), ("none", 2)))
    assert [domain.domain for domain in found.domains] == ["art", "law"]
    assert (found.num_domains, found.num_unlabelled) == (2, 2)
    assert found.layers[0].committee == (1,)
    assert {c.domain for c in found.contributions} == {"art", "law"}
    assert "(no domain, left out)" in render_table(found)


def test_a_dataset_without_domains_is_one_domain(lake_with):
    found = audit(lake_with(("none", 3), ("none", 3)))
    assert [domain.domain for domain in found.domains] == ["none"]
    assert found.num_unlabelled == 0
    assert found.layers[0].committee == (3,)
