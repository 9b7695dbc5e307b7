"""Merging small files: the same rows in the same order, beside readers and writers."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable

from tests.store.conftest import make_rows, request_row, run_row, together
from tracer.errors import DamagedDataError, LakeBusyError
from tracer.store import compact, replace_files
from tracer.store.compact import compact_run
from tracer.store.lake import Lake
from tracer.store.removed_files import remove_expired
from tracer.store.run_writer import writing_run
from tracer.store.shard import ShardWriter
from tracer.workflow.verify import verify_lake

TABLES_OF_A_RUN = ("routing", "tokens", "usage", "usage_by_domain", "requests")
KEYS = {
    "routing": ["layer_id", "request_id", "position"],
    "tokens": ["request_id", "position"],
    "usage": ["layer_id", "request_id", "phase"],
    "requests": ["request_id"],
}


def write(lake, run_id, batches, *, first=0, domains=("law", "math")):
    """Batches of two requests each, of both domains in turn."""
    writer = ShardWriter(lake.storage, run_id, num_experts=4, precision="f32")
    with writing_run(lake, run_row(run_id)) as target:
        for batch in range(first, first + batches):
            names = [f"q{batch:03d}-{number}" for number in range(2)]
            parts = [make_rows(name, domain=domains[batch % 2]) for name in names]
            files = writer.write(f"{batch:06d}-w0", together(*parts))
            rows = [request_row(name, domain=domains[batch % 2]) for name in names]
            target.commit(batch, files, rows)


@pytest.fixture
def lake(tmp_path):
    lake = Lake.create(tmp_path / "lake")
    write(lake, "a", 7)
    return lake


def rows(lake, table):
    return DeltaTable(str(Path(lake.location) / table)).to_pyarrow_table()


def sums(lake):
    """`usage_by_domain` over all shards."""
    keys = ["domain", "phase", "layer_id", "expert_id"]
    found = (
        rows(lake, "usage_by_domain")
        .group_by(keys)
        .aggregate(
            [
                ("num_choices", "sum"),
                ("weight_sum", "sum"),
                ("weight_min", "min"),
                ("weight_max", "max"),
            ]
        )
    )
    return found.sort_by([(key, "ascending") for key in keys])


def nothing(_):
    pass


def test_the_rows_stay_and_the_files_become_few(lake):
    before = {table: rows(lake, table) for table in KEYS}
    before_sums = sums(lake)
    result = compact_run(lake, "a", nothing)
    assert (result.before, result.after) == (35, 5)
    for table, keys in KEYS.items():
        (path,) = lake.files(table, "a")
        order = [(key, "ascending") for key in keys]
        assert (
            pq.read_table(path, partitioning=None)
            .sort_by(order)
            .equals(before[table].sort_by(order))
        ), table
    assert sums(lake).equals(before_sums)
    assert verify_lake(lake, None, repair=False, checked=nothing).faults == []


def test_merged_routing_is_sorted_with_one_row_group_per_layer(lake):
    compact_run(lake, "a", nothing)
    (path,) = lake.files("routing", "a")
    file = pq.ParquetFile(path)
    assert file.num_row_groups == 2
    for number, layer_id in enumerate((0, 2)):
        group = file.read_row_group(number)
        assert set(group["layer_id"].to_pylist()) == {layer_id}
        keys = list(
            zip(group["request_id"].to_pylist(), group["position"].to_pylist(), strict=True)
        )
        assert keys == sorted(keys)
        assert len(keys) == 42


def test_a_merged_file_holds_about_a_shard(lake):
    """Each file has 24 choices (2 requests, 3 tokens, 2 layers, k = 2), so two make 60 at most."""
    compact_run(lake, "a", nothing, values=60)
    sizes = [pq.read_metadata(path).num_rows for path in lake.files("routing", "a")]
    assert sorted(sizes) == [12, 24, 24, 24]


def test_merging_again_changes_nothing_and_new_files_are_merged_with_it(lake):
    compact_run(lake, "a", nothing)
    files = lake.files("routing", "a")
    result = compact_run(lake, "a", nothing)
    assert (result.before, result.after) == (5, 5)
    assert lake.files("routing", "a") == files
    write(lake, "a", 2, first=7)
    compact_run(lake, "a", nothing)
    assert len(lake.files("routing", "a")) == 1
    assert lake.num_rows("routing", "a") == 9 * 12
    assert verify_lake(lake, None, repair=False, checked=nothing).faults == []


def test_a_run_goes_on_where_it_stopped(lake):
    compact_run(lake, "a", nothing)
    with writing_run(lake, run_row("a")) as target:
        assert target.next_batch == 7
        assert len(target.done) == 14


def test_files_of_other_runs_are_left_alone(lake):
    write(lake, "b", 3)
    files = lake.files("routing", "b")
    compact_run(lake, "a", nothing)
    assert lake.files("routing", "b") == files


def test_a_writer_and_a_reader_go_on_meanwhile(lake, monkeypatch):
    """Between reading the small files and the commit a batch lands, and a reader opens it."""
    seen = []
    original = replace_files.replace_files

    def slow(storage, table, *args):
        if table == "routing":
            write(lake, "a", 1, first=7)
            seen.extend(DeltaTable(storage.locate(table)).file_uris())
        return original(storage, table, *args)

    monkeypatch.setattr(compact, "replace_files", slow)
    compact_run(lake, "a", nothing)
    assert len(seen) == 8
    assert sum(pq.read_metadata(path).num_rows for path in seen) == 96  # its files are still there
    assert lake.num_rows("routing", "a") == 96
    assert len(lake.files("routing", "a")) == 2
    assert verify_lake(lake, None, repair=False, checked=nothing).faults == []


def test_a_crash_before_the_commit_loses_nothing(lake, monkeypatch):
    before = rows(lake, "routing")

    def crash(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(compact, "replace_files", crash)
    with pytest.raises(KeyboardInterrupt):
        compact_run(lake, "a", nothing)
    monkeypatch.undo()
    assert rows(lake, "routing").equals(before)
    assert remove_expired(lake, 0) == (0, 0)  # files that were to go and are still named
    assert compact_run(lake, "a", nothing).after == 5
    assert len(list((Path(lake.location) / "routing" / "a" / "compacted").iterdir())) == 1
    assert verify_lake(lake, None, repair=False, checked=nothing).faults == []


def test_the_old_files_go_when_they_are_old_enough(lake):
    old = lake.files("routing", "a")
    compact_run(lake, "a", nothing)
    assert remove_expired(lake, 168) == (0, 0)
    files, freed = remove_expired(lake, 0)
    assert files == 35
    assert freed > 0
    assert not any(Path(path).exists() for path in old)
    assert lake.num_rows("routing", "a") == 84


def test_two_compactions_of_one_run_do_not_meet(lake):
    with lake.compacting("a"), pytest.raises(LakeBusyError):
        compact_run(lake, "a", nothing)


def test_layers_with_other_rows_are_refused(lake, monkeypatch):
    """A merged file could not say which rows are whose."""
    path = lake.files("routing", "a")[0]
    file = pq.ParquetFile(path)
    first, second = file.read_row_group(0), file.read_row_group(1)
    with pq.ParquetWriter(path, file.schema_arrow) as writer:
        writer.write_table(first)
        writer.write_table(second.take(np.arange(len(second))[::-1].copy()))
    with pytest.raises(DamagedDataError, match="layer 2 has other rows"):
        compact_run(lake, "a", nothing)
    assert len(lake.files("routing", "a")) == 7


def test_hundreds_of_requests_in_tiny_batches(tmp_path):
    lake = Lake.create(tmp_path / "many")
    write(lake, "a", 60)
    compact_run(lake, "a", nothing)
    assert {table: len(lake.files(table, "a")) for table in TABLES_OF_A_RUN} == dict.fromkeys(
        TABLES_OF_A_RUN, 1
    )
    assert lake.num_rows("routing", "a") == 60 * 12
