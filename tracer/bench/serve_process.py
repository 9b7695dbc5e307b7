"""A `vllm serve` for a benchmark, with or without live capture; it ends with the block."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import httpx
import psutil

from tracer.errors import EngineFailedError

__all__ = ["SERVED_NAME", "ServeProcess", "serving"]

SERVED_NAME = "bench"
_START_SECONDS = 900.0
_STOP_SECONDS = 40.0


class ServeProcess:
    """A server that answers."""

    def __init__(self, process: "subprocess.Popen[bytes]", url: str) -> None:
        self._process = process
        self.url = url

    def cpu_seconds(self) -> float:
        """Compute time of all its processes so far; counted in hundredths of a second."""
        total = 0.0
        top = psutil.Process(self._process.pid)
        for process in (top, *top.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                total += times.user + times.system
        return total


@contextlib.contextmanager
def serving(
    model: Path, options: Sequence[str], log: Path, environ: Mapping[str, str]
) -> Iterator[ServeProcess]:
    """Start a server and wait until it answers.

    Args:
        model: folder of the checkpoint.
        options: of `vllm serve`.
        log: file for what it says.
        environ: variables beside this process's own; none of live capture is inherited.

    Raises:
        EngineFailedError: it does not start.
    """
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    inherited = {n: v for n, v in os.environ.items() if not n.startswith("TRACER_LIVE")}
    with log.open("wb") as file:
        process = subprocess.Popen(
            [
                sys.executable, "-m", "tracer.bench.vllm_command", "serve", str(model),
                "--served-model-name", SERVED_NAME, "--host", "127.0.0.1", "--port", str(port),
                *options,
            ],
            env={**inherited, **environ},
            stdout=file,
            stderr=file,
            start_new_session=True,
        )  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    try:
        _wait(process, url, log)
        yield ServeProcess(process, url)
    finally:
        _stop(process)


def _wait(process: "subprocess.Popen[bytes]", url: str, log: Path) -> None:
    until = time.monotonic() + _START_SECONDS
    while time.monotonic() < until:
        if process.poll() is not None:
            raise EngineFailedError("to start", f"vllm serve ended with {process.returncode}", log)
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(f"{url}/health", timeout=5).is_success:
                return
        time.sleep(0.5)
    raise EngineFailedError("to start", f"no answer in {_START_SECONDS:.0f} s", log)


def _stop(process: "subprocess.Popen[bytes]") -> None:
    """Ask the server to stop, then see to it that nothing of it is left."""
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_STOP_SECONDS)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
