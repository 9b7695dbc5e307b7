"""A real `vllm serve` on a CPU, with the planted model."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tracer.live.status import read_status

HERE = Path(__file__).parent
START_SECONDS = 600
WAIT_SECONDS = 60
LIFETIME_SECONDS = 1800


@dataclass
class Server:
    """A server that answers.

    url: without a slash at its end; model: its name in requests
    """

    process: subprocess.Popen
    url: str
    model: str
    log: Path
    control: Path | None
    headers: dict = field(default_factory=dict)

    def post(self, path, document, headers=None):
        """(HTTP status, parsed answer or its bytes) of a request."""
        body = document if isinstance(document, bytes) else json.dumps(document).encode()
        request = urllib.request.Request(
            self.url + path,
            body,
            {"Content-Type": "application/json", **self.headers, **(headers or {})},
        )
        try:
            with urllib.request.urlopen(request, timeout=WAIT_SECONDS) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()

    def get(self, path):
        with urllib.request.urlopen(self.url + path, timeout=WAIT_SECONDS) as answer:
            return answer.read().decode()

    def complete(self, prompt="Two and two", headers=None, **options):
        """A completion; its ``vllm_xargs`` by that keyword."""
        document = {"model": self.model, "prompt": prompt, "max_tokens": 4, "temperature": 0}
        status, answer = self.post("/v1/completions", {**document, **options}, headers)
        assert status == 200, answer
        return answer

    @property
    def status(self):
        return read_status(self.control)

    def wait_for(self, holds, seconds=WAIT_SECONDS):
        """The status, once ``holds(status)``."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            counts = self.status
            if counts is not None and holds(counts):
                return counts
            time.sleep(0.1)
        raise AssertionError(f"{self.status}\n{self.log.read_text()[-4000:]}")

    def stop(self, seconds=WAIT_SECONDS):
        """Ask the server to end; returns its exit code."""
        self.process.terminate()
        return self.process.wait(seconds)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def serving(model, folder, *options, env=None, control=None):
    """A server in ``folder``; ends with the block, or by itself after a while.

    Args:
        model: folder of the model.
        folder: working directory of the server, with its log.
        options: further ones of `vllm serve`.
        env: added to ours.
        control: control folder of live capture, if it records.
    """
    port = free_port()
    log = folder / "server.log"
    words = [
        "timeout", str(LIFETIME_SECONDS), sys.executable, str(HERE / "serve.py"),
        "serve", str(model), "--served-model-name", "m",
        "--host", "127.0.0.1", "--port", str(port), "--dtype", "float32", "--enforce-eager",
        "--max-model-len", "512", "--kv-cache-memory-bytes", str(64 * 2**20), *options,
    ]  # fmt: skip
    environ = {
        **{name: value for name, value in os.environ.items() if not name.startswith("TRACER_")},
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "PYTHONPATH": str(HERE.parents[1]),
        **(env or {}),
    }
    with log.open("ab") as output:
        process = subprocess.Popen(
            words, cwd=folder, env=environ, stdout=output, stderr=output, start_new_session=True
        )
    server = Server(process, f"http://127.0.0.1:{port}", "m", log, control)
    try:
        until = time.monotonic() + START_SECONDS
        while True:
            assert process.poll() is None, log.read_text()[-6000:]
            assert time.monotonic() < until, log.read_text()[-6000:]
            with contextlib.suppress(OSError):
                server.get("/health")
                break
            time.sleep(0.2)
        yield server
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(WAIT_SECONDS)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.fixture(scope="session")
def served_model(tmp_path_factory):
    """Folder of the planted model that servers load."""
    from tracer.demo import write_demo_model

    folder = tmp_path_factory.mktemp("models") / "served"
    write_demo_model(folder, seed=0)
    return folder
