"""An interrupted capture goes on; a finished one is left alone; other settings are refused."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import polars as pl
import pytest

pytestmark = pytest.mark.engine


def options(model, lake, *more):
    return [
        "capture", "--model", model, "--dataset", "demo", "--lake", lake, "--run-id", "r",
        "--enforce-eager", "--limit", "120", "--max-tokens", "8", "--max-num-seqs", "16",
        "--format", "json", *more,
    ]  # fmt: skip


def has_begun(lake):
    return bool(list(lake.glob("runs/_delta_log/*1.json")))


def keys(lake):
    routing = pl.read_delta(str(lake / "routing")).select("request_id", "position", "layer_id")
    assert routing.height == routing.n_unique()
    return set(routing.iter_rows())


def test_a_killed_capture_resumes_without_loss_or_doubles(engine, planted_model, tmp_path):
    """SIGKILL in the middle of writing the third batch; the same command finishes the run."""
    model = planted_model("olmoe")
    whole = engine.run(*options(model, tmp_path / "whole"))
    assert whole.exit_code == 0, whole.stderr
    script = tmp_path / "dies.py"
    script.write_text(
        "import os, signal, sys\n"
        "from tracer.capture import recording\n"
        "from tracer.cli import run\n"
        "from tracer.store import commit\n"
        "recording.SHARD_CHOICES = 4000\n"
        "add_once, calls = commit._add_once, []\n"
        "def add_and_die(*arguments, **named):\n"
        "    calls.append(arguments[1])\n"
        "    if len(calls) == 13:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    add_once(*arguments, **named)\n"
        "commit._add_once = add_and_die\n"
        "sys.exit(run(sys.argv[1:]))\n"
    )
    killed = engine.run(*options(model, tmp_path / "lake"), code=script)
    assert killed.exit_code == -signal.SIGKILL
    partial = len(keys(tmp_path / "lake"))
    assert 0 < partial < len(keys(tmp_path / "whole"))

    resumed = engine.run(*options(model, tmp_path / "lake"))

    assert resumed.exit_code == 0, resumed.stderr
    assert "resuming" in resumed.stderr
    assert keys(tmp_path / "lake") == keys(tmp_path / "whole")
    assert json.loads(resumed.stdout)["resumed_requests"] > 0
    requests = pl.read_delta(str(tmp_path / "lake" / "requests"))
    assert (requests.height, requests["request_id"].n_unique()) == (120, 120)
    named = {path.name for path in (tmp_path / "lake" / "_tracer" / "staged" / "r").iterdir()}
    assert named == set()

    again = engine.run(*options(model, tmp_path / "lake"))

    assert again.exit_code == 0
    assert "already complete" in again.stderr
    assert json.loads(again.stdout)["bytes_written"] == 0

    other = engine.run(*options(model, tmp_path / "lake", "--temperature", "1.0"))

    assert other.exit_code == 2
    assert "started with other settings: sampling" in other.stderr


def test_an_interrupt_ends_with_one_line_and_resumes(planted_model, tmp_path):
    """Ctrl-C while prompts run, on the real command in a process of its own."""
    command = [
        sys.executable, "-m", "tracer",
        *map(str, options(planted_model("olmoe"), tmp_path / "lake", "--max-tokens", "4000",
                          "--ignore-eos")),
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        deadline = time.monotonic() + 120
        while not has_begun(tmp_path / "lake"):
            assert time.monotonic() < deadline
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert stdout == ""
    assert stderr.splitlines()[-2:] == [
        "Error: interrupted",
        "Hint: the same command resumes where it stopped.",
    ]
    (run,) = pl.read_delta(str(tmp_path / "lake" / "runs")).to_dicts()
    assert run["status"] == "running"


@pytest.fixture
def short_folder():
    """For sockets, whose paths have 107 characters at most."""
    with tempfile.TemporaryDirectory(prefix="t", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def test_a_killed_engine_core_ends_the_capture(planted_model, tmp_path, short_folder):
    """With the engine in a process of its own: its death is told at once, not waited for."""
    command = [
        sys.executable, "-m", "tracer",
        *map(str, options(planted_model("olmoe"), tmp_path / "lake", "--max-tokens", "4000",
                          "--ignore-eos")),
    ]  # fmt: skip
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "1",
        "TMPDIR": str(short_folder),
    }
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        deadline = time.monotonic() + 240
        while not has_begun(tmp_path / "lake"):
            assert time.monotonic() < deadline
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.2)
        time.sleep(1)
        (core,) = [
            int(entry.name)
            for entry in Path("/proc").iterdir()
            if entry.name.isdigit() and is_engine_core(entry, process.pid)
        ]
        os.kill(core, signal.SIGKILL)
        stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stdout) == (4, "")
    error, hint = stderr.splitlines()[-2:]
    assert error.startswith("Error: the engine failed while running: ")
    log = Path(hint.removeprefix("Hint: its log is "))
    assert log.parent == short_folder
    assert "EngineCore" in log.read_text()


def is_engine_core(entry, parent):
    try:
        stat = (entry / "stat").read_text()
        name = (entry / "comm").read_text()
    except OSError:
        return False
    return int(stat.rpartition(")")[2].split()[1]) == parent and name.startswith("VLLM::Engine")


def test_a_job_does_its_steps_once(engine, planted_model, tmp_path):
    (tmp_path / "job.yaml").write_text(
        "model: model\ndataset: demo\noptions: {run_id: nightly, limit: 27, max_tokens: 4}\n"
        "engine: ['--enforce-eager']\naudit: {output: audit.json}\nreport: {output: r.html}\n"
    )
    (tmp_path / "model").symlink_to(planted_model("olmoe"))
    first = engine.run("job", "run", "job.yaml", cwd=tmp_path)
    assert first.exit_code == 0, first.stderr
    steps = ("capture", "verify", "audit", "report")

    def statuses(told):
        (combination,) = json.loads(told.stdout)["combinations"]
        return [combination["steps"][step]["status"] for step in steps]

    assert statuses(first) == ["done"] * 4
    assert len(json.loads((tmp_path / "audit.json").read_text())) == 4
    (tmp_path / "r.html").unlink()

    second = engine.run("job", "run", "job.yaml", cwd=tmp_path)

    assert second.exit_code == 0
    assert statuses(second) == ["skipped", "skipped", "skipped", "done"]

    (tmp_path / "job.yaml").write_text("model: missing\ndataset: demo\n")
    failed = engine.run("job", "run", "job.yaml", cwd=tmp_path)
    assert failed.exit_code == 2
    (combination,) = json.loads(failed.stdout)["combinations"]
    assert (combination["status"], combination["steps"]) == ("failed", {})
    assert combination["error"]["message"] in failed.stderr
