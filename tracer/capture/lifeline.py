"""Ends vLLM's processes when the one that captures is gone.

vLLM's engine core waits for requests of a front end that was killed for as long as the machine
runs (0.32, seen), and holds the device's memory that the next capture needs.
"""

import contextlib
import os
import select
import signal
import threading
from pathlib import Path

__all__ = ["end_with"]


def end_with(driver: int) -> None:
    """End this process, and those between it and process ``driver``, when that one ends.

    Does nothing in the driver itself, nor in a worker that is not below it.
    """
    doomed: list[int] = []
    process = os.getpid()
    while process != driver:
        if process == 0:
            return
        doomed.insert(0, process)
        process = _parent(process)
    if not doomed:
        return
    gone = os.pidfd_open(driver)

    def wait() -> None:
        select.select([gone], [], [])
        for process in doomed:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)

    threading.Thread(target=wait, name="tracer-lifeline", daemon=True).start()


def _parent(process: int) -> int:
    # The name before it, in brackets, may hold anything.
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
