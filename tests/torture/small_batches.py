"""``tracer`` with batches of a few thousand choices, committed at once; leads a session.

``TORTURE_STEP``, if set, is "<step>:<count>" of ``kill_at.watch``.
"""

import multiprocessing
import os
import sys

if __name__ == "__main__":
    from tests.torture.kill_at import watch
    from tracer.capture import recording
    from tracer.cli import run

    # Whatever it starts can be found by its session, also when it is gone itself.
    os.setsid()
    if wanted := os.environ.get("TORTURE_STEP"):
        watch(*wanted.rsplit(":", 1))
    # vLLM spawns the processes of its CPU engine; a fork of this one need not import vLLM.
    context = multiprocessing.get_context("fork")
    multiprocessing.get_context = lambda method=None: context
    recording.SHARD_CHOICES, recording._POLL_SECONDS = 6000, 0
    sys.exit(run(sys.argv[1:]))
