"""``tracer capture`` on an engine that also records expert ids by itself, which are kept.

usage: capture_with_vllm_ids.py IDS.npz [tracer capture options]
IDS.npz holds one array a request, named by its id: [forwarded tokens, decoder layers, k].
"""

import sys

import numpy as np

from tracer.capture.engine import Engine
from tracer.cli import run

path, *options = sys.argv[1:]
returned = {}
step = Engine.step


def keeping_step(self):
    outputs = step(self)
    for output in outputs:
        returned[output.request_id] = np.asarray(output.outputs[0].routed_experts)
    return outputs


Engine.step = keeping_step
code = run(["capture", *options, "--enable-return-routed-experts"])
np.savez(path, **returned)
sys.exit(code)
