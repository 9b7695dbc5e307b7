"""``tracer capture`` with one thing added: what vLLM returns is written to a file.

usage: capture_keeping_outputs.py OUTPUTS.json [tracer capture options]
"""

import json
import sys
from pathlib import Path

from tracer.capture.engine import Engine
from tracer.cli import run

path, *options = sys.argv[1:]
returned = {}
step = Engine.step


def keeping_step(self):
    outputs = step(self)
    for output in outputs:
        returned[output.request_id] = {
            "prompt": list(output.prompt_token_ids),
            "generated": list(output.outputs[0].token_ids),
        }
    return outputs


Engine.step = keeping_step
code = run(["capture", *options])
Path(path).write_text(json.dumps(returned))
sys.exit(code)
