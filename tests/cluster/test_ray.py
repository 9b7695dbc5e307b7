"""`tracer capture --workers` on a real Ray: `make test-ray`, in an environment with both.

One machine, two workers with an engine each. Rows are compared with a capture of one process: equal
are requests, token ids, and expert ids but for ties of router scores within 1e-6; gate weights may
differ by 1e-5, since other requests share a step's batch.
"""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest
import ray

from tests.torture.compare import compare
from tracer.demo import write_demo_model
from tracer.store.lake import Lake
from tracer.workflow.verify import verify_lake
from tracer.workflow.worker_board import Board, Totals
from tracer.workflow.workers import _STARTS

ROOT = Path(__file__).parents[2]
TASK = "ray::_capture_share"


@pytest.fixture(scope="module")
def address():
    """Of a Ray that lasts as long as these tests: its own processes take long to start."""
    given = {"address": "local", "num_cpus": 2, "include_dashboard": False}
    if "RAY_ADDRESS" in os.environ:
        given = {}
    for left in reversed(range(_STARTS)):
        try:
            ray.init(log_to_driver=False, **given)
            break
        except Exception:
            ray.shutdown()
            if not left:
                raise
    yield ray.get_runtime_context().gcs_address
    ray.shutdown()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    write_demo_model(folder, architecture="olmoe", seed=0)
    return folder


def start(address, *words, script=None):
    program = [str(script)] if script else ["-m", "tracer"]
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
        **({"RAY_ADDRESS": address} if address else {}),
    }
    return subprocess.Popen(
        [sys.executable, *program, *map(str, words)],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def options(model, lake, *more):
    return [
        "capture", "--model", model, "--dataset", "demo", "--lake", lake, "--run-id", "r",
        "--enforce-eager", "--max-num-seqs", "8", "--ignore-eos", "--dtype", "float32",
        "--weight-precision", "f32", "--format", "json", *more,
    ]  # fmt: skip


SHORT = ["--limit", "100", "--max-tokens", "24", "--router-logits", "--router-weights"]


def processes():
    """Pids of tasks that capture a share."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and (entry / "cmdline").read_bytes().startswith(TASK.encode()):
                found.append(int(entry.name))
    return sorted(found)


def until(condition, process, timeout=900):
    deadline = time.monotonic() + timeout
    while not (answer := condition()):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return answer


def requests(lake):
    return pl.read_delta(str(lake / "requests")).sort("request_id").to_dicts()


def holders(lake):
    """Pids by share of those that have its lock open and are tasks of Ray's."""
    found = {}
    for pid in processes():
        with contextlib.suppress(OSError):
            for handle in Path(f"/proc/{pid}/fd").iterdir():
                with contextlib.suppress(OSError):
                    if match := re.fullmatch(
                        rf"{re.escape(str(lake))}/_tracer/locks/r\.shares/(\d+)\.lock",
                        str(handle.readlink()),
                    ):
                        found[int(match[1])] = pid
    return found


def shares_with_requests(lake):
    """Shares that have committed a batch."""
    files = (lake / "requests" / "r").glob("*.parquet")
    return {int(file.name.split("-")[0]) // 1_000_000 for file in files}


def test_a_worker_is_killed_and_the_run_is_whole(address, model, tmp_path):
    """SIGKILL to one of two workers between two of its commits; Ray starts its task again."""
    lake, whole = tmp_path / "lake", tmp_path / "whole"
    alone = start(None, *options(model, whole, *SHORT))
    out, err = alone.communicate(timeout=900)
    assert alone.returncode == 0, err
    rows = json.loads(out)["num_rows"]

    script = ROOT / "tests/cluster/capture_on_ray.py"
    command = start(address, *options(model, lake, *SHORT, "--workers", "2"), script=script)
    victim = until(lambda: holders(lake).get(1) if 1 in shares_with_requests(lake) else None,
                   command)  # fmt: skip
    os.kill(victim, signal.SIGKILL)
    out, err = command.communicate(timeout=900)

    assert command.returncode == 0, err
    assert "share 1/2 starts again, for its process died" in err
    assert "share 0/2 starts again" not in err
    assert re.search(r"\d+/100 requests", err), err
    summary = json.loads(out)
    assert (summary["run_status"], summary["num_requests"], summary["num_rows"]) == (
        "complete",
        100,
        rows,
    )
    assert summary["share"] is None
    assert 0 < summary["resumed_requests"] < 50
    assert requests(lake) == requests(whole)
    found = compare(lake, whole)
    assert found.ok, found
    assert (found.rows, pl.read_delta(str(lake / "routers")).height) == (rows, 4)
    assert verify_lake(Lake.open(lake), None, repair=False, checked=lambda _: None).faults == []
    runs = [pl.read_delta(str(one / "runs")).drop("started_at", "finished_at") for one in
            (lake, whole)]  # fmt: skip
    assert runs[0].to_dicts() == runs[1].to_dicts()


def test_an_interrupt_stops_the_tasks(address, model, tmp_path):
    lake = tmp_path / "lake"
    long = ["--max-tokens", "4000", "--workers", "2"]
    command = start(address, *options(model, lake, *long))
    until(lambda: len(holders(lake)) == 2, command)
    command.send_signal(signal.SIGINT)
    out, err = command.communicate(timeout=900)
    assert (command.returncode, out) == (130, "")
    assert err.splitlines()[-2:] == [
        "Error: interrupted",
        "Hint: the same command resumes where it stopped.",
    ]
    deadline = time.monotonic() + 120
    while processes():
        assert time.monotonic() < deadline, "tasks go on"
        time.sleep(0.2)
    (run,) = pl.read_delta(str(lake / "runs")).to_dicts()
    assert run["status"] == "running"


def test_errors_of_workers_and_of_rays_are_told(address, tmp_path):
    """A model that is none: every share fails, one error names the first; no GPU to ask for."""
    lake = tmp_path / "lake"
    wrong = start(address, *options(tmp_path / "none", lake, "--workers", "2"))
    greedy = start(
        address, *options(tmp_path / "none", lake, "--workers", "2", "--gpus-per-worker", "2")
    )
    _, err = wrong.communicate(timeout=900)
    assert wrong.returncode == 2
    assert re.search(
        r"^Error: share 0/2 on \S+: no model '.*2 of 2 shares failed$", err, re.MULTILINE
    ), err
    assert "Hint: check the path or name" in err
    _, err = greedy.communicate(timeout=900)
    assert greedy.returncode == 2
    assert "a worker asks for 2 GPUs, and no machine of Ray's has more than 0" in err
    assert "lower --gpus-per-worker" in err
    assert not lake.exists()


class Shown:
    """What a progress bar was told."""

    def __init__(self):
        self.notes, self.begun, self.requests, self.num_bytes = [], [], 0, 0

    def note(self, text):
        self.notes.append(text)

    def begin(self, total, done):
        self.begun.append((total, done))

    def advance(self, requests, tokens):
        self.requests += requests

    def written(self, num_bytes):
        self.num_bytes += num_bytes


def test_progress_is_that_of_all_shares_and_goes_back_with_a_lost_process():
    board, shown = Board(2), Shown()
    totals = Totals(shown, 10)
    totals.show(board.read())
    assert shown.begun == []
    for share, done in ((0, 0), (1, 3)):
        board.start(share)
        board.begin(share, 5, done)
    board.add(0, 2, 70, 100)
    totals.show(board.read())
    assert (shown.begun, shown.requests, shown.num_bytes) == ([(10, 0)], 5, 100)
    board.start(0)
    totals.show(board.read())
    assert shown.requests == 3
    assert shown.notes[-1] == "share 0/2 starts again, for its process died"
    board.begin(0, 5, 1)
    board.add(0, 4, 140, 200)
    board.add(1, 2, 70, 0)
    totals.show(board.read())
    assert shown.requests == 10
