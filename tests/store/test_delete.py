"""A run taken out of every table, at once for readers, its files later."""

from pathlib import Path

import pytest
from deltalake import DeltaTable, write_deltalake

from tests.store.conftest import make_rows, request_row, run_row, together
from tracer.errors import LakeBusyError, UnknownRunError
from tracer.schema import OPTIONAL_TABLES, TABLES
from tracer.store import commit, delete
from tracer.store.compact import compact_run
from tracer.store.delete import delete_run
from tracer.store.lake import Lake
from tracer.store.removed_files import remove_expired
from tracer.store.run_writer import writing_run
from tracer.store.shard import ShardWriter
from tracer.workflow.verify import verify_lake


def write(lake, run_id, names):
    writer = ShardWriter(lake.storage, run_id, num_experts=4, precision="f32")
    with writing_run(lake, run_row(run_id)) as target:
        for number, name in enumerate(names):
            batch = target.next_batch + number
            files = writer.write(f"{batch:06d}-w0", together(make_rows(name)))
            target.commit(batch, files, [request_row(name)])


@pytest.fixture
def lake(tmp_path):
    lake = Lake.create(tmp_path / "lake")
    for run_id in ("a", "b"):
        write(lake, run_id, ["q0", "q1"])
    return lake


def runs_in(lake, table):
    found = DeltaTable(str(Path(lake.location) / table)).to_pyarrow_table(columns=["run_id"])
    return sorted(found["run_id"].unique().to_pylist())


def nothing(_):
    pass


TABLES_HERE = [table for table in TABLES if table not in OPTIONAL_TABLES]


def test_nothing_of_the_run_is_left_and_all_of_the_other_is(lake):
    freed = delete_run(lake, "a", nothing)
    assert freed > 0
    for table in TABLES_HERE:
        assert runs_in(lake, table) == ["b"], table
    assert lake.num_rows("routing", "b") == 12
    with pytest.raises(UnknownRunError):
        lake.run("a")
    assert verify_lake(lake, None, repair=False, checked=nothing).faults == []


def test_its_files_go_when_they_are_old_enough(lake):
    files = lake.files("routing", "a")
    delete_run(lake, "a", nothing)
    assert remove_expired(lake, 168) == (0, 0)
    assert len(list((Path(lake.location) / "routing" / "a").iterdir())) == len(files)
    count, _ = remove_expired(lake, 0)
    assert count == 10
    assert list((Path(lake.location) / "routing" / "a").glob("*.parquet")) == []


@pytest.mark.parametrize("expired", [False, True])
def test_the_name_may_be_used_again(lake, expired):
    """Also while the old files are still there: new ones get other names."""
    delete_run(lake, "a", nothing)
    if expired:
        remove_expired(lake, 0)
    write(lake, "a", ["q0", "q1", "q2"])
    assert lake.num_rows("routing", "a") == 18
    assert sorted(lake.request_status("a")) == ["q0", "q1", "q2"]
    remove_expired(lake, 0)
    assert lake.num_rows("routing", "a") == 18
    assert verify_lake(lake, None, repair=False, checked=nothing).faults == []


def test_an_interrupted_deletion_goes_on(lake, monkeypatch):
    """The run is unknown from the first step on; the same call ends it."""
    original = delete.replace_files

    def crash(storage, table, *args):
        if table == "usage":
            raise KeyboardInterrupt
        return original(storage, table, *args)

    monkeypatch.setattr(delete, "replace_files", crash)
    with pytest.raises(KeyboardInterrupt):
        delete_run(lake, "a", nothing)
    monkeypatch.undo()
    with pytest.raises(UnknownRunError):
        lake.run("a")
    faults = verify_lake(lake, None, repair=False, checked=nothing).faults
    assert {fault.run_id for fault in faults} == {"a"}
    assert "`tracer delete --run a`" in faults[0].detail
    delete_run(lake, "a", nothing)
    assert runs_in(lake, "routing") == ["b"]
    with pytest.raises(UnknownRunError):
        delete_run(lake, "a", nothing)
    assert verify_lake(lake, None, repair=False, checked=nothing).faults == []


def test_a_merged_run_can_be_deleted(lake):
    compact_run(lake, "a", nothing)
    delete_run(lake, "a", nothing)
    assert runs_in(lake, "usage_by_domain") == ["b"]
    assert remove_expired(lake, 0)[0] == 15  # ten small ones and five merged


def test_rows_in_files_of_another_tool_are_deleted_too(lake):
    """One file then holds both runs; the other run's rows stay."""
    whole = DeltaTable(str(Path(lake.location) / "routing")).to_pyarrow_table()
    write_deltalake(str(Path(lake.location) / "routing"), whole, mode="overwrite")
    delete_run(lake, "a", nothing)
    assert runs_in(lake, "routing") == ["b"]
    assert lake.num_rows("routing", "b") == 12


def test_a_run_that_is_written_or_merged_is_not_deleted(lake):
    for lock in (lake.writing, lake.compacting):
        with lock("a"), pytest.raises(LakeBusyError):
            delete_run(lake, "a", nothing)
    assert lake.num_rows("routing", "a") == 12


def test_an_unknown_run_is_refused(lake):
    with pytest.raises(UnknownRunError, match="no run 'c'"):
        delete_run(lake, "c", nothing)


@pytest.mark.parametrize("done", range(5))
def test_a_run_deleted_with_half_a_batch_can_be_recorded_again(lake, monkeypatch, done):
    """The tables remember the number of the batch; what comes under the same name has another."""
    add, calls = commit._add_once, []

    def dies(*arguments):
        calls.append(arguments)
        if len(calls) > done:
            raise KeyboardInterrupt
        add(*arguments)

    monkeypatch.setattr(commit, "_add_once", dies)
    with pytest.raises(KeyboardInterrupt):
        write(lake, "half", ["q0"])
    monkeypatch.undo()
    delete_run(lake, "half", nothing)
    write(lake, "half", ["q0"])
    assert lake.num_rows("routing", "half") == 6
    assert lake.num_rows("tokens", "half") == 4
    assert verify_lake(lake, "half", repair=False, checked=nothing).faults == []
