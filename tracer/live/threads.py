"""Threads that may run on any of the processor's cores that the server may use.

On a CPU, vLLM ties the engine's thread to a core, and threads that it starts inherit the tie.
"""

import contextlib
import os
import threading
from collections.abc import Callable, Iterable

__all__ = ["cores_of_this_thread", "free_thread"]


def cores_of_this_thread() -> frozenset[int]:
    """Cores that the calling thread may run on; ask before vLLM ties it. Empty: not known."""
    if not hasattr(os, "sched_getaffinity"):
        return frozenset()
    return frozenset(os.sched_getaffinity(0))


def free_thread(work: Callable[[], None], name: str, cores: Iterable[int]) -> threading.Thread:
    """A thread, not started yet, that runs on these cores; without any, wherever it may.

    It does not keep the process from ending.
    """
    wanted = frozenset(cores)

    def run() -> None:
        if wanted:
            with contextlib.suppress(OSError):  # fewer cores than there were: the tie stays
                os.sched_setaffinity(0, wanted)
        work()

    return threading.Thread(target=run, name=name, daemon=True)
