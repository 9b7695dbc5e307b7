"""Tables and columns that not every lake has."""

import dataclasses
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from tests.store.conftest import make_rows, request_row, run_row
from tracer.api import open_lake
from tracer.errors import DamagedDataError
from tracer.schema import OPTIONAL_TABLES, arrow_schema, table_schema
from tracer.store import commit
from tracer.store.lake import Lake, utc_now
from tracer.store.run_writer import writing_run
from tracer.store.shard import ShardWriter
from tracer.store.shard_rows import RouterWeights
from tracer.workflow.verify import verify_lake

# Columns of `runs` that may be empty and that the older lake has.
KEPT = ("dataset", "finished_at")
ROUTERS = {0: RouterWeights(np.ones((4, 3), np.float32)), 2: RouterWeights(np.eye(4, dtype="f4"))}


@pytest.fixture
def lake(tmp_path):
    return Lake.create(tmp_path / "lake")


def rows_with_extras(request):
    """Three tokens in two layers, one candidate and four logits each."""
    return dataclasses.replace(
        make_rows(request),
        candidate_ids=np.full((3, 2, 1), 3, np.int16),
        candidate_scores=np.full((3, 2, 1), 0.75, np.float32),
        router_logits=np.full((3, 2, 4), -1.5, np.float16),
    )


def files_of(lake, run_id, batch, request):
    """A shard with all that can be recorded, the routers of the run among it."""
    writer = ShardWriter(lake.storage, run_id, num_experts=4, precision="f32")
    name = f"{batch:06d}-w0"
    return [
        *writer.write(name, rows_with_extras(request)),
        writer.write_routers(f"routers-{name}", ROUTERS),
    ]


def heights(lake):
    return {
        table: pl.read_delta(str(Path(lake.location) / table)).height for table in OPTIONAL_TABLES
    }


def test_a_lake_without_them_shows_them_empty(lake):
    opened = open_lake(lake.location)
    for table in OPTIONAL_TABLES:
        names = arrow_schema(table).names
        relation = opened.sql(f"from {table}")
        assert (relation.columns, relation.fetchall()) == (names, [])
        frame = opened.scan(table).collect()
        assert (frame.columns, frame.height) == (names, 0)
        assert lake.files(table) == []
        assert lake.num_rows(table, "r") == 0
        assert not (Path(lake.location) / table).exists()


def test_a_run_that_has_them_makes_them(lake):
    with writing_run(lake, run_row("plain")) as target:
        writer = ShardWriter(lake.storage, "plain", num_experts=4, precision="f32")
        target.commit(0, writer.write("000000-w0", make_rows("a")), [request_row("a")])
    with writing_run(lake, run_row("rich")) as target:
        target.commit(0, files_of(lake, "rich", 0, "a"), [request_row("a")])
    assert heights(lake) == {"candidates": 6, "router_logits": 6, "routers": 2}
    opened = open_lake(lake.location)
    query = (
        "select count(*), min(candidates.scores[1]), max(logits[4]), any_value(run_id)"
        " from routing join candidates using (run_id, request_id, position, layer_id)"
        " join router_logits using (run_id, request_id, position, layer_id)"
    )
    assert opened.sql(query).fetchall() == [(6, 0.75, -1.5, "rich")]
    routers = opened.scan("routers").sort("layer_id").collect()
    assert routers["hidden_size"].to_list() == [3, 4]
    assert lake.num_rows("candidates", "plain") == 0


def test_routers_are_committed_once_per_run(lake):
    """An attempt that died brought them already; another run has its own."""
    for run_id in ("r", "s"):
        for batch, request in enumerate("ab"):
            with writing_run(lake, run_row(run_id)) as target:
                target.commit(batch, files_of(lake, run_id, batch, request), [request_row(request)])
    routers = pl.read_delta(str(Path(lake.location) / "routers"))
    assert sorted(routers.select("run_id", "layer_id").rows()) == [
        (run_id, layer) for run_id in ("r", "s") for layer in (0, 2)
    ]
    assert heights(lake)["candidates"] == 2 * 2 * 6


def die_after(done, monkeypatch):
    """The process dies at the commit of a table after ``done`` others."""
    add_once, calls = commit._add_once, []

    def dies(*arguments):
        if len(calls) == done:
            raise KeyboardInterrupt
        calls.append(arguments[1])
        add_once(*arguments)

    monkeypatch.setattr(commit, "_add_once", dies)


@pytest.mark.parametrize("done", range(8))
def test_a_crash_between_any_two_tables_is_finished(lake, monkeypatch, done):
    """Eight tables: the process dies when ``done`` of them are committed."""
    requests = commit.write_requests(lake, "r", 0, [{"run_id": "r", **request_row("a")}])
    files = [*files_of(lake, "r", 0, "a"), requests]
    die_after(done, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        commit.commit_batch(lake, "r", 0, files)
    monkeypatch.undo()
    assert lake.request_status("r") == {}
    with lake.writing("r") as lock:
        assert commit.recover(lake, "r", lock) == 0
    assert lake.request_status("r") == {"a": "complete"}
    assert heights(lake) == {"candidates": 6, "router_logits": 6, "routers": 2}


@pytest.mark.parametrize("done", range(7))
def test_a_batch_that_is_being_committed_is_no_damage(lake, monkeypatch, done):
    """Seven tables, `routers` being there: what is not whole yet is told once, as strangers."""

    def two_batches():
        with writing_run(lake, run_row("r")) as target:
            target.commit(0, files_of(lake, "r", 0, "a"), [request_row("a")])
            die_after(done, monkeypatch)
            target.commit(1, files_of(lake, "r", 1, "b"), [request_row("b")])

    with pytest.raises(KeyboardInterrupt):
        two_batches()
    faults = verify_lake(lake, None, repair=False, checked=lambda _: None).faults
    assert {fault.check for fault in faults} == ({"strangers"} if done else set())
    sums = "select sum(num_choices) from usage_by_domain"
    assert open_lake(lake.location).sql(sums).fetchall() == [(16,)]  # with last-prompt


def test_a_crash_before_the_commit_leaves_nothing_behind(lake):
    files_of(lake, "r", 0, "a")
    with lake.writing("r") as lock:
        assert commit.recover(lake, "r", lock) == 7
    assert not list(Path(lake.location).glob("*/r/*"))
    assert all(lake.files(table) == [] for table in OPTIONAL_TABLES)


def test_a_file_that_is_gone_is_damage(lake):
    with writing_run(lake, run_row("r")) as target:
        target.commit(0, files_of(lake, "r", 0, "a"), [request_row("a")])
    Path(lake.files("candidates")[0]).unlink()
    with pytest.raises(DamagedDataError, match="candidates names it"):
        lake.files("candidates")
    shutil.rmtree(Path(lake.location) / "router_logits" / "_delta_log")
    (Path(lake.location) / "router_logits" / "_delta_log").mkdir()
    with pytest.raises(DamagedDataError, match="table router_logits"):
        lake.files("router_logits")


def test_two_processes_may_make_a_table_at_once(lake):
    """Two runs, each with its first candidates: 2 x 6 rows, none lost."""
    script = (
        "import sys; sys.path.insert(0, sys.argv[3])\n"
        "from tracer.store.lake import Lake; from tracer.store.run_writer import writing_run\n"
        "from tests.store.conftest import request_row, run_row\n"
        "from tests.store.test_optional_tables import files_of\n"
        "lake = Lake.open(sys.argv[1]); run = sys.argv[2]\n"
        "with writing_run(lake, run_row(run)) as target:\n"
        "    files = files_of(lake, run, 0, 'a')\n"
        "    print('ready', flush=True); sys.stdin.readline()\n"
        "    target.commit(0, files, [request_row('a')])\n"
    )
    arguments = [sys.executable, "-c", script, lake.location]
    root = str(Path(__file__).parents[2])
    writers = [
        subprocess.Popen(
            [*arguments, f"r{number}", root],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
    for writer in writers:
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        writer.stdin.write("go\n")
        writer.stdin.flush()
    assert [writer.wait(timeout=120) for writer in writers] == [0] * 2
    for writer in writers:
        writer.stdin.close()
        writer.stdout.close()
    assert heights(lake) == {"candidates": 12, "router_logits": 12, "routers": 4}


@pytest.fixture
def older(tmp_path):
    """A lake with the run `old`, from when `runs` had fewer columns."""
    path = tmp_path / "older"
    names = [c.name for c in table_schema("runs").columns if not c.nullable or c.name in KEPT]
    Lake.create(path)
    shutil.rmtree(path / "runs")
    schema = pa.schema([arrow_schema("runs").field(name) for name in names])
    table = DeltaTable.create(
        str(path / "runs"),
        schema,
        configuration={"moe_tracer.schema_version": "1"},
        raise_if_key_not_exists=False,
    )
    row = {**run_row("old"), "status": "complete", "started_at": utc_now()}
    write_deltalake(table, pa.Table.from_pylist([row], schema), mode="append")
    return Lake.open(path)


def test_an_older_lake_is_read_with_its_new_columns_empty(older):
    assert older.run("old")["options"] is None
    opened = open_lake(older.location)
    assert opened.sql("select run_id, model, options from runs").fetchall() == [("old", "m", None)]
    frame = opened.scan("runs").collect()
    assert frame.columns == arrow_schema("runs").names
    assert frame["options"].to_list() == [None]


def test_an_older_lake_takes_new_runs(older):
    with writing_run(older, run_row("new", options="{}")) as target:
        target.commit(0, files_of(older, "new", 0, "a"), [request_row("a")])
    opened = open_lake(older.location)
    query = "select run_id, options from runs order by run_id"
    assert opened.sql(query).fetchall() == [("new", "{}"), ("old", None)]
    frame = opened.scan("runs").sort("run_id").collect()
    assert frame["options"].to_list() == ["{}", None]
    assert [run["options"] for run in older.runs()] == [None, "{}"]
    assert set(pl.read_delta(older.storage.locate("runs")).columns) == set(
        arrow_schema("runs").names
    )
