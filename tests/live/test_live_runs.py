"""Runs by time: begun, closed, cut off, deleted; without a server."""

import datetime
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="needs vLLM: make setup")

from tests.live.traffic import RUN_ROW, Traffic
from tracer.live.config import LiveConfig
from tracer.live.retention import keep_within, run_sizes
from tracer.live.runs import DATASET, LiveRuns, period_of
from tracer.store.delete import delete_run
from tracer.store.lake import Lake, utc_now

NOON = datetime.datetime(2026, 11, 27, 12, 30, tzinfo=datetime.UTC).timestamp()


def by_run(path):
    lake = Lake.open(path)
    return {run["run_id"]: sorted(lake.request_status(run["run_id"])) for run in lake.runs()}


@pytest.mark.parametrize(
    ("hour", "run_hours", "period"),
    [
        (12.5, 1, "2026-11-27T12"),
        (12.999, 1, "2026-11-27T12"),
        (13, 1, "2026-11-27T13"),
        (12.5, 6, "2026-11-27T12"),
        (17.9, 6, "2026-11-27T12"),
        (23.9, 24, "2026-11-27T00"),
    ],
)
def test_periods_are_hours_of_utc(hour, run_hours, period):
    midnight = datetime.datetime(2026, 11, 27, tzinfo=datetime.UTC).timestamp()
    assert period_of(midnight + hour * 3600, run_hours) == period


def test_a_request_belongs_to_the_run_in_whose_time_it_ended(tmp_path):
    one = Traffic(tmp_path / "lake", name="web")
    one.now = NOON
    one.run("a", [1, 2], [3, 4])
    one.step(("over", {0: 1}), new=[("over", [1], None)])  # begins before one o'clock
    one.recorder.join()
    one.tick(3600)
    one.settle()
    one.step(ended=[("over", "stop", [2])])
    one.run("b", [1, 2], [3, 4])
    one.close()
    assert by_run(tmp_path / "lake") == {
        "web-2026-11-27T12": ["a"],
        "web-2026-11-27T13": ["b", "over"],
    }
    runs = Lake.open(tmp_path / "lake").runs()
    assert [run["status"] for run in runs] == ["complete", "complete"]
    assert all(run["finished_at"] is not None and run["dataset"] == DATASET for run in runs)


def test_an_idle_server_closes_the_run_of_a_time_that_is_over(tmp_path):
    one = Traffic(tmp_path / "lake", name="web")
    one.now = NOON
    one.run("a", [1, 2], [3, 4])
    one.recorder.join()
    one.tick(6)
    one.settle()
    assert [run["status"] for run in Lake.open(tmp_path / "lake").runs()] == ["running"]
    one.tick(3600)
    for _ in range(200):
        if one.runs.current is None:
            break
        time.sleep(0.05)
    assert [run["status"] for run in Lake.open(tmp_path / "lake").runs()] == ["complete"]
    one.close()


def test_another_start_in_the_same_hours_is_a_run_of_its_own(tmp_path):
    for name in ("a", "b"):
        one = Traffic(tmp_path / "lake", name="web")
        one.now = NOON
        one.run(name, [1, 2], [3, 4])
        one.close()
    assert by_run(tmp_path / "lake") == {
        "web-2026-11-27T12": ["a"],
        "web-2026-11-27T12-2": ["b"],
    }


KILLED = """
import os, signal, sys
from tests.live.traffic import Traffic
one = Traffic(sys.argv[1], name="web", seal_seconds=1.0)
one.now = float(sys.argv[2])
one.run("sealed", [1, 2], [3, 4])
one.recorder.join()
one.tick(2)
one.settle()
one.run("tail", [1, 2], [3, 4])
one.recorder.join()
if sys.argv[3] == "staged":
    import tracer.store.commit as commit
    commit._publish = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
    one.tick(2)
    one.settle(60)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize(("moment", "kept"), [("open", ["sealed"]), ("staged", ["sealed", "tail"])])
def test_a_killed_server_loses_its_unsealed_tail_only(tmp_path, repository, moment, kept):
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path / "lake"), str(NOON), moment],
        cwd=repository,
        check=False,
        timeout=120,
    )
    assert done.returncode == -9
    one = Traffic(tmp_path / "lake", name="web")
    one.now = NOON
    until = time.monotonic() + 60  # before any request comes
    while Lake.open(tmp_path / "lake").runs()[0]["status"] == "running":
        assert time.monotonic() < until
        time.sleep(0.05)
    one.run("next", [1, 2], [3, 4])
    one.close()
    assert by_run(tmp_path / "lake") == {
        "web-2026-11-27T12": kept,
        "web-2026-11-27T12-2": ["next"],
    }
    assert [run["status"] for run in Lake.open(tmp_path / "lake").runs()] == ["cut_off", "complete"]


def test_a_run_that_another_server_writes_is_left_to_it(tmp_path):
    first = Traffic(tmp_path / "lake", name="web")
    second = Traffic(tmp_path / "lake", name="web")
    first.now = second.now = NOON
    first.run("a", [1, 2], [3, 4])
    first.recorder.join()
    first.tick(6)
    first.settle()
    second.run("b", [1, 2], [3, 4])
    second.close()
    first.run("c", [1, 2], [3, 4])
    first.close()
    assert by_run(tmp_path / "lake") == {
        "web-2026-11-27T12": ["a", "c"],
        "web-2026-11-27T12-2": ["b"],
    }


@pytest.fixture
def lake_of_runs(tmp_path):
    """Runs web-...T10 to T13, an offline run and one of another name."""
    for name in ("web", "other"):
        one = Traffic(tmp_path / "lake", name=name)
        for hour in range(4 if name == "web" else 1):
            one.now = NOON + hour * 3600
            one.run(f"{name}{hour}", [1, 2], [3, 4])
            one.recorder.join()
        one.close()
    lake = Lake.open(tmp_path / "lake")
    offline = {**lake.runs()[0], "run_id": "offline", "dataset": "demo", "options": "{}"}
    lake.put_run(offline)
    return lake


def test_the_oldest_runs_go_beyond_the_size(lake_of_runs):
    sizes = run_sizes(lake_of_runs)
    room = sizes["web-2026-11-27T14"] + sizes["web-2026-11-27T15"] + 1
    config = LiveConfig(lake=lake_of_runs.location, name="web", disk_gb=room / 1e9)
    assert keep_within(lake_of_runs, config) == ["web-2026-11-27T12", "web-2026-11-27T13"]
    assert keep_within(lake_of_runs, config) == []
    assert {run["run_id"] for run in lake_of_runs.runs()} == {
        "web-2026-11-27T14",
        "web-2026-11-27T15",
        "other-2026-11-27T12",
        "offline",
    }


def test_runs_that_ended_too_long_ago_go(lake_of_runs):
    old = {**lake_of_runs.run("web-2026-11-27T14")}
    old["finished_at"] = utc_now() - datetime.timedelta(hours=5)
    lake_of_runs.put_run(old)
    config = LiveConfig(lake=lake_of_runs.location, name="web", keep_hours=4)
    assert keep_within(lake_of_runs, config) == ["web-2026-11-27T14"]


def test_a_run_ends_early_where_it_would_be_all_the_disk(tmp_path):
    one = Traffic(tmp_path / "lake", name="web", disk_gb=20e3 / 1e9, seal_seconds=0.5)
    one.now = NOON
    for number in range(8):
        one.run(f"q{number}", [1, 2, 3, 4], [5, 6])
        one.recorder.join()
        one.tick(1)
        one.settle()
    one.close()
    lake = Lake.open(tmp_path / "lake")
    assert sum(run_sizes(lake).values()) < 20e3 + 20e3
    assert by_run(tmp_path / "lake") == {"web-2026-11-27T12-8": ["q7"]}


def test_names_of_runs_come_from_the_configuration_alone(tmp_path):
    one = Traffic(tmp_path / "lake", name="web", labels=("tenant",))
    one.now = NOON
    evil = "../../x'; DROP TABLE requests; --"
    extra = {"tracer_domain": evil, "tracer_label_tenant": evil}
    one.run("../../" + evil, [1, 2], [3, 4], extra=extra)
    one.close()
    names = {str(path.relative_to(tmp_path)) for path in Path(tmp_path).rglob("*")}
    assert not any("x'" in name or "DROP" in name for name in names)
    lake = Lake.open(tmp_path / "lake")
    rows = lake.rows("requests", "web-2026-11-27T12", ["request_id", "domain", "labels"])
    (row,) = rows.to_pylist()
    assert row == {
        "request_id": "../../" + evil,
        "domain": evil,
        "labels": [("tenant", evil)],
    }


def test_what_was_dropped_is_told_by_one_run_only(tmp_path):
    counts = {"queue_full": 3}
    runs = LiveRuns(
        LiveConfig(lake=str(tmp_path / "lake"), name="web"), RUN_ROW, {}, lambda: counts
    )
    runs.of("2026-11-27T12")
    counts["aborted"] = 1
    runs.of("2026-11-27T13")
    counts["queue_full"] = 4
    runs.close()
    rows = Lake.open(tmp_path / "lake").runs()
    assert [row["num_dropped"] for row in rows] == [4, 1]
    dropped = [json.loads(row["options"])["live"]["dropped"] for row in rows]
    assert dropped == [{"queue_full": 3, "aborted": 1}, {"queue_full": 1}]


def test_the_name_of_a_deleted_run_can_be_used_again(tmp_path):
    for name in ("a", "b"):
        one = Traffic(tmp_path / "lake", name="web")
        one.now = NOON
        one.run(name, [1, 2], [3, 4])
        one.close()
        found = by_run(tmp_path / "lake")
        delete_run(Lake.open(tmp_path / "lake"), "web-2026-11-27T12", lambda _: None)
    assert found == {"web-2026-11-27T12": ["b"]}
