"""A clock that is set back in the middle of a run."""

import datetime
import time
from pathlib import Path

import pytest

from tests.store.conftest import make_rows, request_row, run_row
from tracer.store import lake as lake_module
from tracer.store import run_writer
from tracer.store.compact import compact_run
from tracer.store.lake import Lake
from tracer.store.removed_files import remove_expired
from tracer.store.run_writer import writing_run
from tracer.store.shard import ShardWriter
from tracer.workflow.verify import verify_lake

YEAR = 365 * 24 * 3600


@pytest.fixture
def clock(monkeypatch):
    """``clock(seconds)`` moves all clocks that the store reads, from now on."""
    shift = 0.0
    real, real_ns = time.time, time.time_ns

    def now():
        return datetime.datetime.fromtimestamp(real() + shift, datetime.UTC)

    def move(seconds):
        nonlocal shift
        shift = seconds

    monkeypatch.setattr(time, "time", lambda: real() + shift)
    monkeypatch.setattr(time, "time_ns", lambda: real_ns() + int(shift * 1e9))
    monkeypatch.setattr(lake_module, "utc_now", now)
    monkeypatch.setattr(run_writer, "utc_now", now)
    return move


def write(lake, batch):
    writer = ShardWriter(lake.storage, "a", num_experts=4, precision="f32")
    with writing_run(lake, run_row("a")) as target:
        assert target.next_batch == batch
        name = f"q{batch}"
        target.commit(batch, writer.write(f"{batch:06d}-w0", make_rows(name)), [request_row(name)])


def test_a_clock_that_is_set_back_loses_and_removes_nothing(tmp_path, clock):
    """Batches from next year, then from last year; files that left the tables are not old then."""
    lake = Lake.create(tmp_path / "lake")
    clock(YEAR)
    write(lake, 0)
    clock(-YEAR)
    write(lake, 1)
    clock(YEAR)
    old = lake.files("routing", "a")
    compact_run(lake, "a", lambda _: None)
    clock(-YEAR)
    assert remove_expired(lake, 0.001) == (0, 0)
    write(lake, 2)
    assert sorted(lake.request_status("a")) == ["q0", "q1", "q2"]
    assert lake.num_rows("routing", "a") == 18
    assert verify_lake(lake, None, repair=False, checked=lambda _: None).faults == []
    clock(2 * YEAR)
    assert remove_expired(lake, 168)[0] > 0
    assert not any(Path(path).exists() for path in old)
    assert verify_lake(lake, None, repair=False, checked=lambda _: None).faults == []
