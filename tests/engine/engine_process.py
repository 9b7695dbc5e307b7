"""The other end of ``fork_server.py``: starts processes that have vLLM imported."""

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Done", "EngineProcess", "Running"]

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Done:
    exit_code: int
    stdout: str
    stderr: str


class Running:
    """A process that ``EngineProcess.start`` started."""

    def __init__(self, pid, ask, out, err):
        self.pid = pid
        self._ask, self._out, self._err = ask, out, err
        self._exit_code = None

    def poll(self):
        """Its exit code, negative if a signal ended it; None while it runs."""
        if self._exit_code is None:
            self._exit_code = self._ask({"poll": self.pid})["exit_code"]
        return self._exit_code

    def wait(self, timeout=float("inf")):
        end = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > end:
                raise TimeoutError(f"runs for {timeout:.0f} s:\n{self._err.read_text()[-2000:]}")
            time.sleep(0.01)
        return Done(self._exit_code, self._out.read_text(), self._err.read_text())


class EngineProcess:
    """Runs tracer commands and scripts in forks of a process that has imported vLLM."""

    def __init__(self, folder):
        self._folder = folder
        self._count = 0
        self._log = (folder / "server.log").open("w")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.engine.fork_server"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        )
        while (line := self._process.stdout.readline()) and not line.startswith('{"ready"'):
            pass
        assert line, (folder / "server.log").read_text()

    def start(self, *argv, code=None, cwd=None, env=None):
        """``tracer argv``, or with ``code`` that Python file; ``env`` is added to ours."""
        self._count += 1
        out, err = (self._folder / f"{self._count}.{name}" for name in ("out", "err"))
        job = {
            "code": str(code) if code else None,
            "argv": [str(word) for word in argv],
            "cwd": str(cwd or self._folder),
            "env": env or {},
            "stdout": str(out),
            "stderr": str(err),
        }
        return Running(self._ask(job)["pid"], self._ask, out, err)

    def run(self, *argv, code=None, cwd=None, env=None):
        return self.start(*argv, code=code, cwd=cwd, env=env).wait()

    def close(self):
        self._process.stdin.close()
        self._process.wait(timeout=60)
        self._process.stdout.close()
        self._log.close()

    def _ask(self, request):
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())
