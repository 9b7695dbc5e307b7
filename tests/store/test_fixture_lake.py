"""The lake of each schema version that was ever released is still read, whole."""

import shutil
from pathlib import Path

import pytest

from tests.store.conftest import run_row
from tracer.api import open_lake
from tracer.store.compact import compact_run
from tracer.store.lake import Lake
from tracer.store.run_writer import writing_run
from tracer.store.upgrade import upgrade_lake
from tracer.workflow.verify import verify_lake


@pytest.fixture
def lake(tmp_path, repository):
    """A copy of `tests/fixtures/lake-1`; see ``tests.store.make_fixture_lake``."""
    shutil.copytree(repository / "tests" / "fixtures" / "lake-1", tmp_path / "lake")
    return Lake.open(tmp_path / "lake")


def test_nothing_is_wrong_with_it(lake):
    found = verify_lake(lake, None, repair=False, checked=lambda _: None)
    assert (found.faults, found.num_runs) == ([], 2)


def test_its_rows_are_what_they_were(lake):
    opened = open_lake(lake.location)
    counts = {
        table: opened.sql(
            f"select run_id, count(*) from {table} group by all order by 1"
        ).fetchall()
        for table in ("requests", "routing", "tokens", "candidates", "router_logits", "routers")
    }
    assert counts == {
        "requests": [("a", 4), ("b", 1)],
        "routing": [("a", 24), ("b", 6)],
        "tokens": [("a", 16), ("b", 4)],
        "candidates": [("a", 24), ("b", 6)],
        "router_logits": [("a", 24), ("b", 6)],
        "routers": [("a", 2)],
    }
    first = opened.sql(
        "select expert_ids, gate_weights from routing"
        " where run_id = 'b' and layer_id = 0 order by position"
    ).fetchall()
    # The choices of tests.store.conftest, by descending weight, equal ones by ascending id.
    assert first == [([3, 1], [0.5, 0.25]), ([1, 2], [0.5, 0.5]), ([3, 0], [0.75, 0.125])]
    # law is q0, q1 and q3: three requests whose prompt has 2 tokens of 2 choices in each layer
    assert opened.sql(
        "select domain, sum(num_choices) from usage_by_domain"
        " where run_id = 'a' and phase = 'prompt' and layer_id = 0 group by all order by 1"
    ).fetchall() == [("law", 12), ("math", 4)]


def test_it_can_be_written_upgraded_and_merged(lake):
    assert upgrade_lake(Path(lake.location)) == ["runs: column num_dropped"]
    assert upgrade_lake(Path(lake.location)) == []
    with writing_run(lake, run_row("a")) as target:
        assert target.next_batch == 3
        assert sorted(target.done) == ["q0", "q1", "q2", "q3"]
    compact_run(lake, "a", lambda _: None)
    found = verify_lake(lake, None, repair=False, checked=lambda _: None)
    assert found.faults == []
