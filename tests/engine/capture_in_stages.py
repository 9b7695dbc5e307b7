"""``tracer capture`` in small batches; with a stage to kill once the first batch is committed.

usage: capture_in_stages.py STAGE|none [tracer capture options]
"""

import os
import signal
import sys

import psutil

from tracer.capture import recording
from tracer.cli import run
from tracer.store.run_writer import RunWriter

commit = RunWriter.commit
killed = []


def commit_then_kill(self, *args, **kwargs):
    num_bytes = commit(self, *args, **kwargs)
    if STAGE != "none" and not killed:
        (worker,) = (
            child
            for child in psutil.Process().children(recursive=True)
            if f"Worker_PP{STAGE}" in " ".join(child.cmdline())
        )
        killed.append(worker.pid)
        os.kill(worker.pid, signal.SIGKILL)
    return num_bytes


if __name__ == "__main__":  # vLLM starts its processes by importing this file
    STAGE, *options = sys.argv[1:]
    RunWriter.commit = commit_then_kill
    recording.SHARD_CHOICES = 20_000
    recording._POLL_SECONDS = 0.0
    code = run(["capture", *options])
    print(f"{len(killed)} stages killed", file=sys.stderr)
    sys.exit(code)
