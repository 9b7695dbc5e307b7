"""``tracer capture`` in small shards onto a disk that takes its time with each file of a shard.

usage: capture_on_slow_disk.py FACTS.json SECONDS CHOICES [tracer capture options]
SECONDS for each write, CHOICES per shard. FACTS.json gets what the worker's drain and log held.
"""

import json
import os
import sys
import threading
import time
from pathlib import Path

from tracer.capture import recording
from tracer.capture.collector import Collector
from tracer.capture.worker import WorkerCapture
from tracer.cli import run

path, seconds, choices, *options = sys.argv[1:]
recording.SHARD_CHOICES = int(choices)
facts = {"steps": 0, "most_log_bytes": 0, "slow_writes": 0}
receive, end, fsync = Collector.receive, WorkerCapture.end, os.fsync


def measured_receive(self, step):
    receive(self, step)
    facts["steps"] += 1
    facts["most_log_bytes"] = max(facts["most_log_bytes"], self.host_bytes)


def measured_end(self):
    drain = self._drain
    facts.update(
        stalls=drain.stalls,
        stalled_s=drain.stalled_s,
        drain_bytes=drain.host_bytes,
        row_bytes=self._attached.buffer.row_format.row_bytes,
        max_rows=len(self._attached.buffer.storage),
    )
    end(self)


def slow_sync(handle):
    # The driver commits on the engine's thread: there a slow disk needs no slots to be felt.
    if threading.current_thread().name == "tracer-shards":
        facts["slow_writes"] += 1
        time.sleep(float(seconds))
    fsync(handle)


Collector.receive, WorkerCapture.end, os.fsync = measured_receive, measured_end, slow_sync
code = run(["capture", *options])
Path(path).write_text(json.dumps(facts))
sys.exit(code)
