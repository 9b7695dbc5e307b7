"""``tracer bench capture`` with loads that take a second, on both models in one process."""

import sys

from tracer.bench import loads
from tracer.cli import run

small = (loads.Load("prefill", 4, 32, 1, 2), loads.Load("decode", 4, 8, 4, 1))
loads.LOADS.update(mid=small, tiny=small)
sys.exit(run(["bench", "capture", *sys.argv[1:]]))
