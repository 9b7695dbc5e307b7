import json
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from tests.store.conftest import make_rows, request_row, run_row, together
from tracer.errors import (
    DamagedDataError,
    InputError,
    LakeBusyError,
    NotALakeError,
    UnknownRunError,
)
from tracer.schema import OPTIONAL_TABLES, TABLES, table_schema
from tracer.store import delta_tables
from tracer.store.commit import commit_batch, recover, write_requests
from tracer.store.lake import Lake
from tracer.store.run_writer import chunks_by_choices, writing_run
from tracer.store.shard import ShardWriter


@pytest.fixture
def lake(tmp_path):
    return Lake.create(tmp_path / "lake")


def shards(lake, run_id, name, *requests):
    writer = ShardWriter(lake.storage, run_id, num_experts=4, precision="f32")
    return writer.write(name, together(*(make_rows(request) for request in requests)))


def test_a_new_lake_has_every_table_empty(lake):
    for table in set(TABLES) - set(OPTIONAL_TABLES):
        frame = pl.read_delta(str(Path(lake.location) / table))
        assert frame.height == 0
        assert frame.columns == [column.name for column in table_schema(table).columns]
    assert not any((Path(lake.location) / table).exists() for table in OPTIONAL_TABLES)


def test_open_refuses_what_is_not_a_lake(tmp_path):
    (tmp_path / "file.txt").write_text("x")
    for path in (tmp_path, tmp_path / "file.txt", tmp_path / "nowhere"):
        with pytest.raises(NotALakeError, match="not a trace lake"):
            Lake.open(path)


def test_create_refuses_a_folder_with_other_things(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(InputError, match="not empty"):
        Lake.create(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_create_completes_an_interrupted_creation(lake):
    import shutil

    shutil.rmtree(Path(lake.location) / "runs")
    with pytest.raises(NotALakeError):
        Lake.open(Path(lake.location))
    assert Lake.create(Path(lake.location)).runs() == []


def test_a_lake_of_another_version_is_refused(tmp_path, monkeypatch):
    monkeypatch.setitem(delta_tables.PROPERTIES, "moe_tracer.schema_version", "99")
    Lake.create(tmp_path / "lake")
    monkeypatch.undo()
    with pytest.raises(InputError, match="version 99"):
        Lake.open(tmp_path / "lake")


@pytest.mark.parametrize("run_id", ["", "a/b", "../x", "a'b", "a b", ".hidden", "x" * 121, "ü"])
def test_run_ids_that_could_be_paths_or_sql_are_refused(lake, run_id):
    with pytest.raises(InputError, match="cannot be used"):
        lake.put_run(run_row(run_id))


def test_run_without_a_name_is_the_only_one(lake):
    with pytest.raises(UnknownRunError, match="holds no runs"):
        lake.run()
    with writing_run(lake, run_row("one")):
        pass
    assert lake.run()["run_id"] == "one"
    with writing_run(lake, run_row("two")):
        pass
    with pytest.raises(UnknownRunError, match="2 runs and none was named: one, two"):
        lake.run()
    with pytest.raises(UnknownRunError, match="no run 'three'"):
        lake.run("three")


def test_a_run_becomes_complete_and_keeps_its_start(lake):
    with pytest.raises(RuntimeError), writing_run(lake, run_row("r")):
        raise RuntimeError
    begun = lake.run("r")
    assert (begun["status"], begun["finished_at"]) == ("running", None)
    with writing_run(lake, run_row("r")):
        pass
    done = lake.run("r")
    assert done["status"] == "complete"
    assert done["started_at"] == begun["started_at"] <= done["finished_at"]


def test_a_committed_batch_is_seen_by_other_readers(lake):
    with writing_run(lake, run_row("r")) as target:
        target.commit(0, shards(lake, "r", "000000-w0", "a", "b"), [request_row("a")])
    assert lake.request_status("r") == {"a": "complete"}
    assert pl.read_delta(str(Path(lake.location) / "routing")).height == 2 * 3 * 2
    assert pl.read_parquet(Path(lake.location) / "tokens" / "**" / "*.parquet").height == 8


def test_files_are_filtered_by_run(lake):
    for run_id in ("r", "s"):
        with writing_run(lake, run_row(run_id)) as target:
            target.commit(0, shards(lake, run_id, "000000-w0", "a"), [request_row("a")])
    assert len(lake.files("routing")) == 2
    assert [Path(path).parent.name for path in lake.files("routing", "s")] == ["s"]


def test_committing_a_batch_again_adds_nothing(lake):
    with writing_run(lake, run_row("r")) as target:
        files = shards(lake, "r", "000000-w0", "a")
        target.commit(0, files, [request_row("a")])
        target.commit(0, files, [request_row("a")])
    assert pl.read_delta(str(Path(lake.location) / "routing")).height == 6
    assert pl.read_delta(str(Path(lake.location) / "requests")).height == 1


def test_a_commit_reads_no_more_of_the_log_in_a_long_run(lake):
    """A table's log is read from its last checkpoint on: after 25 batches at most 10 commits."""
    with writing_run(lake, run_row("a")) as target:
        for batch in range(25):
            target.commit(batch, [], [request_row(f"q{batch}")])
    log = Path(lake.location) / "requests" / "_delta_log"
    newest = max(int(path.name.split(".")[0]) for path in log.glob("*.json"))
    checkpoint = json.loads((log / "_last_checkpoint").read_text())["version"]
    assert newest == 25
    assert newest - checkpoint < 10
    assert len(lake.request_status("a")) == 25


def test_a_crash_between_tables_is_finished_by_the_next_writer(lake, monkeypatch):
    """The process dies after two of five tables; the staged batch brings the rest."""
    files = [
        *shards(lake, "r", "000000-w0", "a"),
        write_requests(lake, "r", 0, [{"run_id": "r", **request_row("a")}]),
    ]
    from tracer.store import commit

    add_once, calls = commit._add_once, []

    def dies_at_the_third(*arguments, **named):
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        add_once(*arguments, **named)

    monkeypatch.setattr(commit, "_add_once", dies_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        commit_batch(lake, "r", 0, files)
    monkeypatch.undo()
    assert lake.files("routing", "r")
    assert not lake.files("requests", "r")

    with lake.writing("r") as lock:
        assert recover(lake, "r", lock) == 0

    assert lake.request_status("r") == {"a": "complete"}
    for table, rows in {"routing": 6, "tokens": 4, "usage": 6}.items():
        assert pl.read_delta(str(Path(lake.location) / table)).height == rows
    with lake.writing("r") as lock:
        assert recover(lake, "r", lock) == 0


def test_files_no_table_names_are_removed_on_resume(lake):
    shards(lake, "r", "000000-w0", "a")
    (Path(lake.location) / "routing" / "r" / ".000001-w0.77.tmp").write_bytes(b"half")
    with writing_run(lake, run_row("r")) as target:
        assert target.done == frozenset()
        assert target.next_batch == 0
    assert not list(Path(lake.location).glob("*/r/*"))


def test_resuming_goes_on_after_the_last_batch(lake):
    with writing_run(lake, run_row("r")) as target:
        target.commit(0, shards(lake, "r", "000000-w0", "a"), [request_row("a")])
    with writing_run(lake, run_row("r")) as target:
        assert target.done == {"a"}
        assert target.next_batch == 1


def test_one_run_has_one_writer(lake):
    """Another process holds the lock; this one is told so and changes nothing."""
    script = (
        "import sys, time; from tracer.store.lake import Lake;"
        f"lake = Lake.open({lake.location!r});"
        "context = lake.writing('r'); context.__enter__(); print('held', flush=True);"
        "sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(LakeBusyError, match="another process"), lake.writing("r"):
            pass
        with lake.writing("s"):
            pass
        other.stdin.close()
    with lake.writing("r"):
        pass


def test_two_processes_commit_to_one_lake_without_loss(lake):
    """Two runs of eight batches each, written at the same time: 16 requests, 16 x 6 rows."""
    script = (
        "import sys; sys.path.insert(0, sys.argv[3]);"
        "from tracer.store.lake import Lake; from tracer.store.run_writer import writing_run;"
        "from tests.store.conftest import request_row, run_row;"
        "from tests.store.test_lake import shards\n"
        "lake = Lake.open(sys.argv[1]); run = sys.argv[2]\n"
        "with writing_run(lake, run_row(run)) as target:\n"
        "    for n in range(8):\n"
        "        name = f'q{n}'\n"
        "        target.commit(n, shards(lake, run, f'{n:06d}-w0', name), [request_row(name)])\n"
    )
    root = str(Path(__file__).parents[2])
    writers = [
        subprocess.Popen([sys.executable, "-c", script, lake.location, run, root])
        for run in ("r", "s")
    ]
    assert [writer.wait(timeout=120) for writer in writers] == [0, 0]
    routing = pl.read_delta(str(Path(lake.location) / "routing"))
    assert routing.height == 16 * 6
    assert routing.select("run_id", "request_id").n_unique() == 16
    assert {row["status"] for row in lake.runs()} == {"complete"}


def test_chunks_hold_about_a_shard():
    """1,000,000 tokens x 4 choices reach 8 million after two items."""
    items = [(name, 1_000_000) for name in "abcde"]
    assert list(chunks_by_choices(items, per_token=4)) == [["a", "b"], ["c", "d"], ["e"]]
    assert list(chunks_by_choices([], per_token=4)) == []


def test_a_lake_that_another_delta_tool_compacted_still_works(lake):
    """Its files then hold several runs and lie outside their folders."""
    for run_id in ("r", "s"):
        with writing_run(lake, run_row(run_id)) as target:
            for batch, request in enumerate("ab"):
                files = shards(lake, run_id, f"{batch:06d}-w0", request)
                target.commit(batch, files, [request_row(request)])
    for table in ("requests", "routing", "usage"):
        lake.delta(table).optimize.compact()
    assert len(lake.files("requests", "r")) == 1
    assert lake.request_status("r") == {"a": "complete", "b": "complete"}
    with writing_run(lake, run_row("r")) as target:
        assert (target.done, target.next_batch) == ({"a", "b"}, 2)
        target.commit(2, shards(lake, "r", "000002-w0", "c"), [request_row("c")])
    assert set(lake.request_status("r")) == {"a", "b", "c"}
    assert lake.rows("routing", "s", ["position"]).num_rows == 12
    assert (lake.num_rows("routing", "r"), lake.num_rows("routing", "s")) == (18, 12)


def test_a_missing_file_or_log_is_damage(lake):
    with writing_run(lake, run_row("r")) as target:
        target.commit(0, shards(lake, "r", "000000-w0", "a"), [request_row("a")])
    Path(lake.files("requests", "r")[0]).unlink()
    with pytest.raises(DamagedDataError, match=r"000000-[0-9a-f]{8}\.parquet is gone"):
        lake.request_status("r")
    (Path(lake.location) / "usage" / "_delta_log" / ("0" * 20 + ".json")).write_text("not json")
    with pytest.raises(DamagedDataError, match="table usage"):
        lake.delta("usage")


def test_a_truncated_file_is_damage(lake):
    with writing_run(lake, run_row("r")) as target:
        target.commit(0, shards(lake, "r", "000000-w0", "a"), [request_row("a")])
    path = Path(lake.files("requests", "r")[0])
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DamagedDataError, match="cannot be read"):
        lake.request_status("r")


def test_a_folder_that_cannot_be_made_is_an_input_error(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="cannot"):
        Lake.create(tmp_path / "file" / "lake")


def test_settings_are_compared_under_the_lock(lake):
    def refuse(stored, row):
        raise InputError(f"{stored['model']} is not {row['model']}")

    with writing_run(lake, run_row("r"), refuse):
        pass
    with (
        pytest.raises(InputError, match="m is not n"),
        writing_run(lake, run_row("r", model="n"), refuse),
    ):
        pass
