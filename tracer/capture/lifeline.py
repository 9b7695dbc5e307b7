"""Ends vLLM's processes when the one that captures is gone.

vLLM's engine core waits for requests of a front end that was killed for as long as the machine
runs (0.32, seen), and holds the device's memory that the next capture needs.
"""

import contextlib
import os
import select
import threading

__all__ = ["end_with"]


def end_with(driver: int) -> None:
    """End this process, and those between it and process ``driver``, when that one ends.

    Does nothing in the driver itself, nor in a worker that is not below it.
    """
    import psutil

    above = psutil.Process().parents()
    pids = [process.pid for process in above]
    if driver not in pids:
        return
    doomed = [*reversed(above[: pids.index(driver)]), psutil.Process()]
    gone = os.pidfd_open(driver)

    def wait() -> None:
        select.select([gone], [], [])
        for process in doomed:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()

    threading.Thread(target=wait, name="tracer-lifeline", daemon=True).start()
