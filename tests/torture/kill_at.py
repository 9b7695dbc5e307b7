"""Ends a process with SIGKILL at a named step of writing, at the step's n-th time in one process.

What the process does is watched through Python's audit events, so the program is not changed.
"""

import os
import re
import signal
import sys

__all__ = ["STEPS", "watch"]

_FOLDER = r"/(routing|tokens|usage|usage_by_domain|requests)/[^/]+"
# Step -> the event that begins what comes next, and the path it has.
STEPS = {
    "shard open": ("open", rf"{_FOLDER}/\.[^/]+\.tmp$"),
    "shard written": ("os.rename", rf"{_FOLDER}/\.[^/]+\.tmp$"),
    "shard renamed": ("open", rf"{_FOLDER}$"),
    "before the batch is staged": ("os.rename", r"/_tracer/staged/[^/]+/\d+\.tmp$"),
    "before the commit": ("open", r"/_tracer/staged/[^/]+$"),
    "after a table's commit": ("open", r"/[a-z_]+/_delta_log/\d+\.json$"),
    "after the commit": ("os.rename", r"/_tracer/staged/[^/]+/\d+\.json$"),
}


def watch(step, count):
    """In this process and in those that it forks."""
    event_name, pattern = STEPS[step]
    found = re.compile(pattern)
    left = int(count)

    def hook(event, arguments):
        nonlocal left
        if event != event_name or not isinstance(arguments[0], str | os.PathLike):
            return
        if found.search(os.fspath(arguments[0])):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
