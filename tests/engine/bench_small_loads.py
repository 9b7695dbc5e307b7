"""``tracer bench capture`` with loads that take a second, on both models in one process.

``TRACER_TEST_THREADS``: how many torch has, as if it had been imported before the command.
"""

import os
import sys

import torch

from tracer.bench import loads
from tracer.capture import recording
from tracer.cli import run

torch.set_num_threads(int(os.environ.get("TRACER_TEST_THREADS", "1")))
small = (loads.Load("prefill", 4, 32, 1), loads.Load("decode", 4, 8, 4))
loads.LOADS.update(mid=small, tiny=small)
# A pair of tiny has 172 tokens of 16 choices, one of mid as many of 64.
recording.SHARD_CHOICES = 2500
sys.exit(run(["bench", "capture", *sys.argv[1:]]))
