# ruff: noqa: INP001
"""What live capture adds to a step of the engine's thread, in compute time of that thread.

    PYTHONPATH=. python benchmarks/live_step.py

A made-up engine decodes for 32 requests at a time; its model does nothing. The rows go the way they
go in a server, into a lake. Median over rounds, microseconds per step, of all but the model and
the hooks. The last line is one JSON object.
"""

import json
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from types import SimpleNamespace

import torch

from tests.live.traffic import FORMAT, Runner, Traffic

REQUESTS, STEPS, ROUNDS = 32, 200, 15


def microseconds(traffic: Traffic, number: int, *, extra: dict[str, str] | None) -> float:
    """Of one step, in a round of them."""
    names = [f"r{number}-{request}" for request in range(REQUESTS)]
    runner = traffic.runner
    runner.input_batch = SimpleNamespace(num_reqs=REQUESTS, req_ids=names)
    runner.query_start_loc.np = torch.arange(REQUESTS + 1).numpy()
    runner.input_ids = torch.ones(REQUESTS, dtype=torch.int64)
    traffic.buffer.storage.zero_()
    outputs = [
        SimpleNamespace(
            num_scheduled_tokens=dict.fromkeys(names, 1),
            total_num_scheduled_tokens=REQUESTS,
            finished_req_ids=set(),
            scheduled_new_reqs=[],
            scheduled_cached_reqs=SimpleNamespace(resumed_req_ids=set()),
        )
        for _ in range(STEPS)
    ]
    outputs[0].scheduled_new_reqs = [
        SimpleNamespace(
            req_id=name,
            prompt_token_ids=[1],
            prompt_embeds=None,
            num_computed_tokens=0,
            sampling_params=SimpleNamespace(extra_args=extra),
        )
        for name in names
    ]
    spent = 0.0
    for place, output in enumerate(outputs):
        runner.positions = torch.full((REQUESTS,), place)
        began = time.thread_time()
        runner.execute_model(output)
        spent += time.thread_time() - began
    traffic.step(ended=[(name, "length", [1] * STEPS) for name in names])
    traffic.recorder.join()
    return 1e6 * spent / STEPS


def main() -> None:
    """Measure both cases."""
    Runner.execute_model = lambda *_: "output"
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        for case, extra in (("declined", {"tracer_capture": "0"}), ("recorded", None)):
            traffic = Traffic(Path(folder) / case, seal_seconds=60, ring_slots=400)
            rounds = [microseconds(traffic, number, extra=extra) for number in range(ROUNDS)]
            results[f"{case}_us"] = round(median(rounds), 1)
            results[f"{case}_dropped"] = sum(traffic.counts.dropped.values())
            traffic.close()
    results |= {"requests": REQUESTS, "row_bytes": FORMAT.row_bytes}
    sys.stdout.write(json.dumps(results) + "\n")


if __name__ == "__main__":
    main()
