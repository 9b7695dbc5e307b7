"""One run written by several processes, each its share: together they are what one writer is."""

import json
import multiprocessing
import os
import re
import signal
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.store.conftest import make_rows, request_row, run_row, together
from tracer.errors import DamagedDataError, InputError, LakeBusyError
from tracer.store import commit, shares
from tracer.store.compact import compact_run
from tracer.store.delete import delete_run
from tracer.store.lake import Lake
from tracer.store.run_writer import finish_share, writing_run, writing_share
from tracer.store.shard import ShardWriter
from tracer.store.shares import BATCHES_OF_A_SHARE, Share, share_of, split_of
from tracer.workflow.verify import verify_lake

NAMES = [f"q{number:02d}" for number in range(11)]


@pytest.fixture
def lake(tmp_path):
    return Lake.create(tmp_path / "lake")


def write(target, names, *, die_after=None):
    """Requests, two in a batch; SIGKILL after so many batches."""
    writer = ShardWriter(target.lake.storage, "r", num_experts=4, precision="f32")
    for number, first in enumerate(range(0, len(names), 2)):
        if number == die_after:
            os.kill(os.getpid(), signal.SIGKILL)
        two = names[first : first + 2]
        batch = target.next_batch + number
        rows = together(*(make_rows(name) for name in two))
        files = writer.write(f"{batch:06d}-w0-{os.getpid()}", rows)
        target.commit(batch, files, [request_row(name) for name in two])


def write_share(path, text, *, die_after=None):
    share = Share.parse(text)
    with writing_share(Lake.open(path), run_row("r"), share, NAMES) as target:
        todo = [name for name in share.take(NAMES) if name not in target.done]
        write(target, todo, die_after=die_after)


def in_process(lake, text, **options):
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=write_share, args=(lake.location, text), kwargs=options)
    process.start()
    return process


class GoneError(Exception):
    """Something ended the writer."""


@contextmanager
def given_up(writing):
    """What is in the block is written, then the writer ends before the run or share does."""
    with suppress(GoneError), writing as target:
        yield target
        raise GoneError


def content(lake):
    """Every row of every table, sorted, without what tells when or by which file."""
    tables = {}
    for table in ("requests", "tokens", "routing", "usage"):
        rows = lake.rows(table, "r", lake.delta(table).to_pyarrow_table().schema.names)
        tables[table] = sorted(json.dumps(row, sort_keys=True) for row in rows.to_pylist())
    run = {**lake.run("r"), "started_at": None, "finished_at": None}
    return tables | {"runs": run}


def alone(tmp_path):
    lake = Lake.create(tmp_path / "alone")
    with writing_run(lake, run_row("r")) as target:
        write(target, NAMES)
    return content(lake)


def sound(lake):
    return verify_lake(lake, None, repair=False, checked=lambda _: None).faults == []


def test_shares_are_every_nth_request():
    parts = [Share(index, 3).take(NAMES) for index in range(3)]
    assert parts[1] == ["q01", "q04", "q07", "q10"]
    assert sorted(name for part in parts for name in part) == NAMES
    assert Share(4, 5).take(NAMES[:2]) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0/0", "1 to 100,000"),
        ("0/100001", "1 to 100,000"),
        ("3/2", "the last one is 1/2"),
        ("2/2", r"0/2 to 1/2; in a Slurm array, --array=0-1"),
        ("a/b", "'a/b' names no share"),
        ("1", "write it as I/N"),
        ("-1/2", "names no share"),
        ("1/2\n", "names no share"),
        ("\u0660/\u0662", "names no share"),
        ("", "names no share"),
    ],
)
def test_what_is_no_share_is_refused(text, message):
    with pytest.raises(InputError) as caught:
        Share.parse(text)
    assert re.search(message, f"{caught.value}; {caught.value.hint}")


def test_files_tell_their_share():
    assert share_of(f"routing/r/{3 * BATCHES_OF_A_SHARE + 7:06d}-w0.0-abcdef.parquet") == 3
    assert share_of("routing/r/.1000002-w0.0-abcdef.17.tmp") == 1
    assert share_of("_tracer/staged/r/12000000.json") == 12
    assert share_of("requests/r/000009-1234abcd.parquet") == 0
    assert share_of("routers/r/routers-w0.0-abcdef.parquet") == 0


def test_processes_at_once_write_what_one_does(lake, tmp_path):
    """Three processes; one is killed in the middle, then started again."""
    processes = [
        in_process(lake, "0/3"),
        in_process(lake, "1/3", die_after=1),
        in_process(lake, "2/3"),
    ]
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, -signal.SIGKILL, 0]
    assert lake.run("r")["status"] == "running"
    assert sorted(lake.request_status("r")) == sorted(set(NAMES) - {"q07", "q10"})
    assert split_of(lake.storage, "r") == 3

    write_share(lake.location, "1/3")

    expected = alone(tmp_path)
    assert content(lake) == expected
    assert lake.run("r")["status"] == "complete"
    assert split_of(lake.storage, "r") is None
    assert sound(lake)
    assert compact_run(lake, "r", lambda _: None).after == 5
    assert content(lake) == expected
    version = lake.delta("runs").version()
    write_share(lake.location, "1/3")  # it comes late
    assert (lake.delta("runs").version(), split_of(lake.storage, "r")) == (version, None)


def test_a_share_leaves_alone_what_another_one_is_at(lake, monkeypatch):
    """Staged batches and files of one share, while another begins, recovers and ends."""
    with writing_share(lake, run_row("r"), Share(1, 2), NAMES) as target:
        batch = target.next_batch
        assert batch == BATCHES_OF_A_SHARE
        writer = ShardWriter(lake.storage, "r", num_experts=4, precision="f32")
        files = writer.write(f"{batch:06d}-w0", make_rows("q01"))
        hidden = Path(lake.location) / "routing" / "r" / f".{batch + 1}-w0.9.tmp"
        hidden.write_bytes(b"half a file")
        monkeypatch.setattr(commit, "_publish", lambda *_: None)
        target.commit(batch, files, [request_row("q01")])  # staged, no more
        monkeypatch.undo()
        write_share(lake.location, "0/2")
        assert hidden.is_file()
        assert all((Path(lake.location) / file.table / file.path).is_file() for file in files)
        assert "q01" not in lake.request_status("r")
    write_share(lake.location, "1/2")
    assert not hidden.is_file()
    assert sorted(lake.request_status("r")) == NAMES
    assert sound(lake)


def test_two_of_one_share_and_those_who_want_the_whole_run_are_refused(lake):
    with writing_share(lake, run_row("r"), Share(0, 2), NAMES):
        with pytest.raises(LakeBusyError, match="share 0/2 of run 'r' is being written"):
            write_share(lake.location, "0/2")
        for whole in (lambda: delete_run(lake, "r", lambda _: None), lambda: begin_alone(lake)):
            with pytest.raises(LakeBusyError, match="run 'r' is being written"):
                whole()
        repaired = verify_lake(lake, None, repair=True, checked=lambda _: None).repaired
        assert repaired == ["run r is being written: left alone"]


def begin_alone(lake):
    with writing_run(lake, run_row("r")):
        pass


def test_who_writes_the_whole_run_keeps_shares_out(lake, monkeypatch):
    monkeypatch.setattr(shares, "_PATIENCE", 0.5)
    with writing_run(lake, run_row("r")), pytest.raises(LakeBusyError, match="run 'r' is"):
        write_share(lake.location, "0/2")
    assert split_of(lake.storage, "r") is None


def test_a_share_with_nothing_left_leaves_alone_who_writes_the_whole_run(lake, monkeypatch):
    """Batches of one writer are numbered as those of share 0, so it could take them for its own."""
    monkeypatch.setattr(shares, "_PATIENCE", 0.5)
    with writing_run(lake, run_row("r")) as target:
        write(target, NAMES[::2])
        writer = ShardWriter(lake.storage, "r", num_experts=4, precision="f32")
        batch = target.next_batch + 6
        files = writer.write(f"{batch:06d}-w0", together(*(make_rows(n) for n in NAMES[1::2])))
        with pytest.raises(LakeBusyError, match="run 'r' is"):
            finish_share(lake, lake.run("r"), Share(0, 2), NAMES[::2], NAMES)
        target.commit(batch, files, [request_row(name) for name in NAMES[1::2]])
    assert sorted(lake.request_status("r")) == NAMES
    assert sound(lake)


def test_a_share_waits_for_another_one_to_begin(lake):
    with shares.in_turn(lake.storage, "r"):
        process = in_process(lake, "0/1")
        time.sleep(2)
        assert lake.runs() == []
    process.join()
    assert process.exitcode == 0
    assert lake.run("r")["status"] == "complete"


def test_another_split_is_refused_until_one_writer_finishes_the_run(lake, tmp_path):
    write_share(lake.location, "1/3")
    with pytest.raises(InputError, match="run 'r' is split into 3 shares, not 2") as caught:
        write_share(lake.location, "0/2")
    assert "without a split" in caught.value.hint
    with writing_run(lake, run_row("r")) as target:
        assert target.done == set(Share(1, 3).take(NAMES))
        write(target, [name for name in NAMES if name not in target.done])
    assert content(lake) == alone(tmp_path)
    assert split_of(lake.storage, "r") is None
    assert sound(lake)


def test_a_run_of_one_process_goes_on_in_shares(lake, tmp_path):
    with given_up(writing_run(lake, run_row("r"))) as target:
        write(target, NAMES[:4])
    write_share(lake.location, "0/2")
    write_share(lake.location, "1/2")
    assert content(lake) == alone(tmp_path)
    assert sound(lake)


def test_a_share_that_died_before_it_completed_the_run(lake):
    """All requests are in the lake, the last batch staged still: no engine is needed to end."""
    write_share(lake.location, "0/2")
    with given_up(writing_share(lake, run_row("r"), Share(1, 2), NAMES)) as t:
        write(t, NAMES[1:3:2])
        assert not finish(lake, t)
        write_rest(t)
    assert lake.run("r")["status"] == "running"
    assert finish_share(lake, lake.run("r"), Share(1, 2), NAMES[1::2], NAMES)
    assert lake.run("r")["status"] == "complete"
    assert sound(lake)


def finish(lake, target):
    """While the share is being written."""
    with pytest.raises(LakeBusyError):
        finish_share(lake, lake.run("r"), Share(1, 2), NAMES[1::2], NAMES)
    return len(lake.request_status("r")) == len(NAMES)


def write_rest(target):
    rest = [name for name in NAMES[1::2] if name not in target.lake.request_status("r")]
    target.next_batch += 1
    write(target, rest)


def test_a_deleted_run_may_be_split_anew(lake):
    write_share(lake.location, "1/3")
    delete_run(lake, "r", lambda _: None)
    assert split_of(lake.storage, "r") is None
    write_share(lake.location, "0/2")
    write_share(lake.location, "1/2")
    assert sorted(lake.request_status("r")) == NAMES
    assert sound(lake)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"shares": "2"}', '{"shares": 0}', "["])
def test_a_broken_note_of_the_split_is_told(lake, text):
    write_share(lake.location, "1/3")
    (Path(lake.location) / "_tracer" / "shares" / "r.json").write_text(text)
    with pytest.raises(DamagedDataError, match="does not say how many shares") as caught:
        write_share(lake.location, "0/3")
    assert '{"shares": N}' in caught.value.hint


def test_sums_of_a_batch_under_way_are_not_counted(lake):
    """By share: a later number of another share does not make a batch whole."""
    write_share(lake.location, "2/3")
    batch = f"{BATCHES_OF_A_SHARE + 0:06d}"
    with given_up(writing_share(lake, run_row("r"), Share(1, 3), NAMES)) as t:
        writer = ShardWriter(lake.storage, "r", num_experts=4, precision="f32")
        files = writer.write(f"{batch}-w0", make_rows("q01"))
        sums = [file for file in files if file.table == "usage_by_domain"]
        commit._add_once(lake, "usage_by_domain", sums, f"r/{batch}")
        assert t.next_batch == int(batch)
    named = {Path(file).name for file in lake.named_files("usage_by_domain", "r")}
    whole = {Path(file).name for file in lake.files("usage_by_domain", "r")}
    assert named - whole == {f"{batch}-w0.parquet"}
