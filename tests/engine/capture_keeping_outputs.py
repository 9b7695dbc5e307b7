"""``tracer capture`` with one thing added: what vLLM returns is written to a file.

usage: capture_keeping_outputs.py OUTPUTS.json [tracer capture options]
Per request: its tokens, why it ended, and where vLLM's own scheduler had it run: "ran" is a list of
[first position, number of tokens], one per step, empty where the scheduler is in another process.
"""

import json
import sys
from pathlib import Path

from vllm.v1.core.sched.scheduler import Scheduler

from tracer.capture.engine import Engine
from tracer.cli import run

returned: dict[str, dict] = {}
ran: dict[str, list] = {}
step, schedule = Engine.step, Scheduler.schedule


def keeping_step(self):
    outputs = step(self)
    for output in outputs:
        returned[output.request_id] = {
            "prompt": list(output.prompt_token_ids),
            "generated": list(output.outputs[0].token_ids),
            "text": output.outputs[0].text,
            "finish_reason": output.outputs[0].finish_reason,
            "ran": ran.pop(output.request_id, []),
        }
    return outputs


def keeping_schedule(self, *arguments, **named):
    scheduled = schedule(self, *arguments, **named)
    new, known = scheduled.scheduled_new_reqs, scheduled.scheduled_cached_reqs
    begins = {request.req_id: request.num_computed_tokens for request in new}
    begins |= dict(zip(known.req_ids, known.num_computed_tokens, strict=True))
    for engine_id, count in scheduled.num_scheduled_tokens.items():
        ran.setdefault(engine_id.rsplit("-", 1)[0], []).append((begins[engine_id], count))
    return scheduled


if __name__ == "__main__":  # an engine core in a process of its own imports this file again
    path, *options = sys.argv[1:]
    Engine.step, Scheduler.schedule = keeping_step, keeping_schedule
    code = run(["capture", *options])
    Path(path).write_text(json.dumps(returned))
    sys.exit(code)
