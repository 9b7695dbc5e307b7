"""Ends a process with SIGKILL at a named step of writing; Python loads it where it is on the path.

``TORTURE_STEP`` is "<step>:<count>", the step's n-th time in one process. What the process does is
watched through Python's audit events, so nothing of the program is changed.
"""

import os
import re
import signal
import sys

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


if wanted := os.environ.get("TORTURE_STEP"):
    watch(*wanted.rsplit(":", 1))
