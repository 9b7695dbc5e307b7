"""`tracer live` against a process that reads commands and writes its status as a worker does."""

import json
import subprocess
import sys
import time

import pytest

from tracer.errors import NoServerError
from tracer.live.control import wait_until_written
from tracer.live.status import Counts, write_status

WORKER = """
import sys, time
from pathlib import Path
from tracer.errors import NoServerError
from tracer.live.control import wait_until_written
from tracer.live.status import ControlReader, Counts, write_status
folder, obeys, broken = Path(sys.argv[1]), sys.argv[2] != "does not", sys.argv[2] == "broken"
reader, counts = ControlReader(folder), Counts(seen=9, chosen=7, recorded=4, rate=0.5)
counts.drop("queue_full", 2)
counts.leave_out("rate")
counts.refuse_value("value")
counts.queue_bytes, counts.queue_limit_bytes = 5_000_000, 10_000_000
if broken or not obeys:
    counts.last_error = "not recording: no router"
until = time.monotonic() + 60
while time.monotonic() < until:
    if obeys and (command := reader.poll()):
        counts.recording = command.recording and not broken
        counts.control_id = command.control_id
        counts.rate = 0.5 if command.rate is None else command.rate
        counts.recorded = 5  # what ran is written
    write_status(folder, counts)
    time.sleep(0.05)
"""


@pytest.fixture
def worker(tmp_path, repository):
    """Starts a process that serves a control folder; ends with the test, else by itself."""
    running = []

    def start(folder, obeys="obeys"):
        words = [sys.executable, "-c", WORKER, str(folder), obeys]
        running.append(subprocess.Popen(words, cwd=repository))
        until = time.monotonic() + 60
        while not (folder / "status.json").exists() and time.monotonic() < until:
            time.sleep(0.05)
        return running[-1]

    yield start
    for process in running:
        process.kill()
        process.wait()


@pytest.fixture
def config(tmp_path, monkeypatch):
    for name in ("TRACER_LIVE", "TRACER_LIVE_CONTROL"):
        monkeypatch.delenv(name, raising=False)
    path = tmp_path / "live.yaml"
    path.write_text("{lake: lake, name: server-1, rate: 0.5}")
    return path


def test_stop_and_start_again(tracer, worker, config, tmp_path):
    worker(tmp_path / "lake" / "_tracer" / "live" / "server-1")
    told = tracer("live", "stop", "--config", str(config))
    assert (told.exit_code, told.stderr) == (0, "")
    assert told.stdout == "stopped: 5 requests recorded, 0 still to write\n"
    status = json.loads(
        tracer("live", "status", "--config", str(config), "--format", "json").stdout
    )
    assert (status["recording"], status["dropped"]) == (False, {"queue_full": 2})
    told = tracer("live", "start", "--config", str(config), "--rate", "0.125")
    assert told.stdout == "recording: 12.5 % of requests\n"
    told = tracer("live", "start", "--config", str(config))
    assert told.stdout == "recording: 50 % of requests\n"


def test_a_status_says_what_became_of_requests(tracer, worker, config, tmp_path, monkeypatch):
    folder = tmp_path / "elsewhere"
    process = worker(folder)
    monkeypatch.setenv("TRACER_LIVE_CONTROL", str(folder))
    told = tracer("live", "status")
    assert told.exit_code == 0
    lines = [" ".join(line.split()) for line in told.stdout.splitlines()]
    for line in (
        "state recording",
        "requests seen 9",
        "pending 1",
        "left out 1 (rate 1)",
        "dropped 2 (queue_full 2)",
        "queue 5.0 MB (50% of its limit)",
    ):
        assert line in lines
    assert any(line.startswith(f"process {process.pid} on ") for line in lines)


def test_an_error_in_the_status_is_exit_code_1(tracer, worker, tmp_path):
    worker(tmp_path / "c", "does not")
    told = tracer("live", "status", "--control", "c")
    assert (told.exit_code, "not recording: no router" in told.stdout) == (1, True)


def test_a_server_that_does_not_obey_in_time(tracer, worker, tmp_path):
    worker(tmp_path / "c", "does not")
    told = tracer("live", "stop", "--control", "c", "--timeout", "0.5")
    assert told.failed(4, "after 0.5 s", "has not obeyed", "not recording: no router", "Hint:")


def test_a_server_that_cannot_record_says_why(tracer, worker, tmp_path):
    worker(tmp_path / "c", "broken")
    told = tracer("live", "start", "--control", "c")
    assert told.failed(4, "cannot record: not recording: no router", "Hint: its log")
    assert tracer("live", "stop", "--control", "c").exit_code == 0


def test_a_drain_waits_for_what_runs(tracer, worker, tmp_path):
    worker(tmp_path / "c")
    told = tracer("live", "stop", "--control", "c", "--drain", "30")
    assert (told.exit_code, "0 still to write" in told.stdout) == (0, True)


def test_a_drain_that_takes_too_long(worker, tmp_path):
    worker(tmp_path / "c", "does not")  # one request stays pending
    with pytest.raises(NoServerError, match=r"after 0.2 s .* still has requests to write"):
        wait_until_written(tmp_path / "c", 0.2)


@pytest.mark.parametrize("name", ["start", "stop", "status"])
def test_no_server(tracer, config, name, tmp_path):
    told = tracer("live", name, "--config", str(config))
    assert told.failed(4, "no server records here", "server-1", "Hint: start `vllm serve`")
    assert not (tmp_path / "lake").exists()


@pytest.mark.parametrize("name", ["start", "stop", "status"])
def test_a_server_that_was_killed(tracer, worker, name, tmp_path):
    process = worker(tmp_path / "c")
    process.kill()
    process.wait()
    told = tracer("live", name, "--control", "c")
    assert told.failed(4, "is gone or hangs", str(process.pid), "Hint: start `vllm serve` again")
    assert not (tmp_path / "c" / "control.json").exists()


def test_a_stale_status_of_another_machine(tracer, tmp_path, monkeypatch):
    write_status(tmp_path / "c", Counts(host="elsewhere"))
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 3600)
    assert tracer("live", "status", "--control", "c").failed(4, "on elsewhere", "3600 s ago")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["status"], "no server was named"),
        (["status", "--config", "nowhere.yaml"], "cannot read nowhere.yaml"),
        (["start", "--control", "c", "--rate", "2"], "--rate"),
        (["stop", "--control", "c", "--timeout", "0"], "--timeout"),
        (["check"], "no configuration was named"),
        (["check", "bad.yaml"], "bad.yaml: rate: "),
    ],
)
def test_what_is_wrong_with_a_command(tracer, config, tmp_path, words, said):
    (tmp_path / "bad.yaml").write_text("{lake: l, rate: 7}")
    assert tracer("live", *words).failed(2, said)


def test_a_damaged_status(tracer, tmp_path):
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "status.json").write_text("{")
    assert tracer("live", "status", "--control", "c").failed(2, "is no status of a server")


def test_who_gives_commands_needs_no_key_of_hashes(tracer, worker, tmp_path, config):
    config.write_text(
        "{lake: lake, labels: [t], hash_labels: [t], hash_key_file: /nowhere/key, control: c}"
    )
    worker(tmp_path / "c")
    assert tracer("live", "status", "--config", str(config)).exit_code == 0
    assert tracer("live", "check", str(config)).failed(2, "cannot read hash_key_file")


def test_check_prints_what_a_server_would_read(tracer, config, monkeypatch):
    monkeypatch.setenv("TRACER_LIVE_RUN_HOURS", "6")
    read = json.loads(tracer("live", "check", str(config)).stdout)
    assert (read["rate"], read["run_hours"], read["name"]) == (0.5, 6, "server-1")


def test_the_published_schema_is_that_of_the_program(tracer, config, repository):
    printed = json.loads(tracer("live", "check", "--schema").stdout)
    assert printed == json.loads((repository / "schemas" / "live.schema.json").read_text())
