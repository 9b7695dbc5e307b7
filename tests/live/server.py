"""A real `vllm serve` of the planted model that records into a lake on a small disk of its own."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

from tracer.store.lake import Lake

REPOSITORY = Path(__file__).parents[2]
MODEL_NAME = "planted"
DISK_MB = 48
LIFETIME_SECONDS = 900


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Server:
    """The server and the disk, which both end with the test, or by themselves after a while.

    The lake lies in a mount namespace, which is looked into through the process that keeps it open.
    """

    def __init__(self, folder, model, settings, *options):
        self.folder, self.port = folder, free_port()
        self.log = folder / "serve.log"
        (folder / "disk").mkdir()
        config = {"lake": str(folder / "disk" / "lake"), "control": str(folder / "control")}
        (folder / "live.json").write_text(json.dumps({**config, **settings}))
        words = [
            sys.executable, "-m", "tracer.bench.vllm_command", "serve", str(model),
            "--served-model-name", MODEL_NAME, "--host", "127.0.0.1", "--port", str(self.port),
            "--enforce-eager", "--max-model-len", "256", "--dtype", "float32", *options,
        ]  # fmt: skip
        script = (
            f"mount -t tmpfs -o size={DISK_MB}m none disk\n"
            f"setsid sleep {LIFETIME_SECONDS} </dev/null >/dev/null 2>&1 & echo $! > holder\n"
            f'exec timeout {LIFETIME_SECONDS} "$@"\n'
        )
        environ = {
            **os.environ,
            "PYTHONPATH": str(REPOSITORY),
            "TRACER_LIVE": str(folder / "live.json"),
            "VLLM_CPU_KVCACHE_SPACE": "1",
            "HF_HUB_OFFLINE": "1",
        }
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [
                    "unshare",
                    "--user",
                    "--map-root-user",
                    "--mount",
                    "bash",
                    "-c",
                    script,
                    "-",
                    *words,
                ],
                cwd=folder,
                env=environ,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    @property
    def disk(self):
        holder = (self.folder / "holder").read_text().strip()
        return Path(f"/proc/{holder}/root{self.folder}/disk")

    def copy_lake(self):
        """The lake as it is now, where other libraries can open it: /proc is no path to them."""
        copy = Path(tempfile.mkdtemp(dir=self.folder)) / "lake"
        shutil.copytree(self.disk / "lake", copy)
        return Lake.open(copy)

    def wait_until_up(self, seconds=480):
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            assert self.process.poll() is None, self.log.read_text()[-6000:]
            with contextlib.suppress(OSError, urllib.error.URLError):
                urllib.request.urlopen(f"{self.url}/health", timeout=5).close()
                return
            time.sleep(1)
        raise AssertionError(self.log.read_text()[-6000:])

    def status(self):
        return json.loads((self.folder / "control" / "status.json").read_bytes())

    def wait_for(self, condition, seconds=60):
        """The first status that meets a condition."""
        until = time.monotonic() + seconds
        while not condition(status := self.status()):
            assert time.monotonic() < until, (status, self.log.read_text()[-3000:])
            time.sleep(0.2)
        return status

    def kill(self):
        """As the kernel does when memory is short: every process of the server at once."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(30)

    def close(self):
        self.kill()
        with contextlib.suppress(OSError, ValueError):
            os.kill(int((self.folder / "holder").read_text()), signal.SIGKILL)
