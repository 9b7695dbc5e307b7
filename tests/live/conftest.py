"""A real `vllm serve` on a CPU, with the planted model."""

import contextlib
import json
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import pytest

from tracer.live.status import read_status

WAIT_SECONDS = 60


@dataclass(frozen=True)
class Server:
    """A server that answers.

    url: without a slash at its end; model: its name in requests
    """

    pid: int
    url: str
    model: str
    log: Path
    control: Path | None

    def post(self, path, document, headers=None):
        """(HTTP status, parsed answer or its bytes) of a request."""
        body = document if isinstance(document, bytes) else json.dumps(document).encode()
        request = urllib.request.Request(
            self.url + path,
            body,
            {"Content-Type": "application/json", **(headers or {})},
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


@contextlib.contextmanager
def serving(model, folder, *options, env=None, control=None):
    """A server that logs into ``folder``; ends with the block.

    Args:
        model: folder of the model.
        folder: of its log.
        options: further ones of `vllm serve`.
        env: added to ours.
        control: control folder of live capture, if it records.
    """
    from tracer.bench import serve_process  # needs libraries that come with vLLM

    log = folder / "server.log"
    words = [
        "--dtype", "float32", "--enforce-eager", "--max-model-len", "512",
        "--kv-cache-memory-bytes", str(64 * 2**20), *options,
    ]  # fmt: skip
    environ = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **(env or {})}
    with serve_process.serving(model, words, log, environ) as running:
        yield Server(running._process.pid, running.url, serve_process.SERVED_NAME, log, control)


@pytest.fixture(scope="session")
def served_model(tmp_path_factory):
    """Folder of the planted model that servers load."""
    from tracer.demo import write_demo_model

    folder = tmp_path_factory.mktemp("models") / "served"
    write_demo_model(folder, seed=0)
    return folder
