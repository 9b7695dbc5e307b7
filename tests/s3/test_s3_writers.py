"""Runs written into a bucket by several processes, killed, paused and resumed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.s3 import write_run
from tests.store.conftest import request_row
from tracer.api import open_lake
from tracer.errors import LakeBusyError
from tracer.store import commit, s3_lease
from tracer.store.lake import Lake
from tracer.workflow.verify import verify_lake

LEASE = 3  # seconds


def start(place, run_id, batches, puts=0):
    script = str(Path(__file__).with_name("write_run.py"))
    return subprocess.Popen(
        [sys.executable, script, place, run_id, str(batches), str(LEASE), str(puts)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process):
    _, told = process.communicate(timeout=240)
    return process.returncode, told.strip()


def assert_whole(place, runs, batches):
    """Each request of each run once, in all tables; no file that no table names."""
    lake = Lake.open(place)
    assert verify_lake(lake, None, repair=False, checked=lambda _: None).faults == []
    assert {row["run_id"]: row["status"] for row in lake.runs()} == dict.fromkeys(runs, "complete")
    routing = open_lake(place).sql("select run_id, request_id, count(*) from routing group by all")
    assert sorted(routing.fetchall()) == sorted(
        (r, f"q{n}", 6) for r in runs for n in range(batches)
    )
    assert lake.storage.names("_tracer/locks") == []


def test_runs_of_several_processes_are_whole(place):
    """Three runs, made and written at the same time in a lake that none of them found there."""
    runs = ("r", "s", "t")
    processes = [start(place, run_id, 4) for run_id in runs]
    assert [ended(process) for process in processes] == [(0, "")] * 3
    assert_whole(place, runs, 4)


def test_a_run_started_three_times_has_one_writer(place):
    processes = [start(place, "r", 10) for _ in range(3)]
    found = sorted(ended(process) for process in processes)
    assert found[0] == (0, "")
    for code, told in found[1:]:
        assert code == 1
        assert told == "LakeBusyError: run 'r' is being written by another process"
    assert_whole(place, ["r"], 10)


@pytest.mark.parametrize("puts", [3, -7, 8, -14, 15])
def test_a_killed_writer_is_resumed_by_the_same_command(place, monkeypatch, puts):
    """Wherever it was in its batch; the lease ends by itself.

    A new lake puts two objects to see that the second is refused, a batch puts six: its files of
    five tables, and what it consists of.
    """
    assert ended(start(place, "r", 3, puts))[0] == -signal.SIGKILL
    monkeypatch.setattr(s3_lease, "LEASE_SECONDS", float(LEASE))
    write_run.main(place, "r", 3, LEASE)
    assert_whole(place, ["r"], 3)


def test_a_writer_that_slept_too_long_writes_no_more(place):
    """Another one has taken its run over and finished it."""
    sleeper = start(place, "r", 200)
    assert sleeper.stdout.readline() == "writing\n"
    sleeper.send_signal(signal.SIGSTOP)
    try:
        assert ended(start(place, "r", 8)) == (0, "")
    finally:
        sleeper.send_signal(signal.SIGCONT)
    code, told = ended(sleeper)
    assert code == 1
    assert told == "LakeBusyError: run 'r' is being written by another process"
    assert_whole(place, ["r"], 8)


def test_a_lease_that_is_given_back_can_be_taken_at_once(place, monkeypatch):
    monkeypatch.setattr(s3_lease, "LEASE_SECONDS", 1000.0)
    lake = Lake.create(place)
    for _ in range(2):
        with lake.writing("r") as lock:
            lock.check()
    with lake.writing("r"), lake.compacting("r"), lake.writing("s"):
        pass


def test_a_lease_is_kept_for_longer_than_it_lasts(place, monkeypatch):
    """Its holder renews it; two more that wait for its end are told who has it."""
    monkeypatch.setattr(s3_lease, "LEASE_SECONDS", 0.5)
    lake = Lake.create(place)
    with lake.writing("r") as lock:
        for _ in range(2):
            with pytest.raises(LakeBusyError), lake.writing("r"):
                pass
        lock.check()


def test_a_writer_that_was_held_up_goes_on_if_nobody_took_its_lease(place):
    """Past its end, as after seconds without a turn; the object is still what it wrote last."""
    lake = Lake.create(place)
    with lake.writing("r") as lock:
        lock._until = time.monotonic() - 1
        lock.check()
        assert lock._until > time.monotonic() + 0.9 * s3_lease.LEASE_SECONDS
        lake.storage.write("_tracer/locks/r.lock", "taken over")
        lock._until = time.monotonic() - 1
        with pytest.raises(LakeBusyError):
            lock.check()


def test_a_lease_that_another_one_took_is_lost(place, monkeypatch):
    monkeypatch.setattr(s3_lease, "LEASE_SECONDS", 0.5)
    lake = Lake.create(place)
    with lake.writing("r") as lock:
        lake.storage.write("_tracer/locks/r.lock", "taken over")
        lock._thread.join(timeout=30)
        with pytest.raises(LakeBusyError):
            lock.check()
    assert lake.storage.read("_tracer/locks/r.lock") == b"taken over"


def test_an_overtaken_writer_cannot_replace_what_was_committed(place):
    """It wakes up after its last look at the lease: same batch, other rows, late."""
    lake = Lake.create(place)
    write_run.main(place, "r", 2, LEASE)
    rows = [{"run_id": "r", **request_row("stranger")}]
    files = [commit.write_requests(lake, "r", 1, rows)]
    commit.commit_batch(lake, "r", 1, files)
    with lake.writing("r") as lock:
        assert commit.recover(lake, "r", lock) == 1
    assert_whole(place, ["r"], 2)


def test_a_process_that_was_forked_is_refused(place):
    """Its requests would never end."""
    Lake.create(place)
    pid = os.fork()
    if pid == 0:
        try:
            Lake.open(place)
        except RuntimeError:
            os._exit(7)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
