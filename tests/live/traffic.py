"""An engine in miniature: steps of made-up requests through everything but vLLM and a model."""

import time
from types import SimpleNamespace

import numpy as np
import torch

from tracer.capture.buffer import RoutingBuffer
from tracer.capture.drain import Drain
from tracer.capture.row_format import Field, RowFormat
from tracer.live.choose import Chooser
from tracer.live.config import LiveConfig
from tracer.live.intake import Intake, watch_traffic
from tracer.live.messages import Tick
from tracer.live.recorder import Recorder
from tracer.live.runs import LiveRuns, period_of
from tracer.live.status import Counts
from tracer.live.writer import LakeWriter

EXPERTS, TOP_K, LAYERS, MAX_ROWS = 8, 2, (0, 3), 64
FORMAT = RowFormat(
    len(LAYERS),
    (
        Field("gate_weights", torch.float32, TOP_K),
        Field("expert_ids", torch.uint8, TOP_K),
        Field("position", torch.int32, 1, per_layer=False),
        Field("token_id", torch.int32, 1, per_layer=False),
    ),
)
RUN_ROW = {
    "model": "made-up",
    "engine": "vllm",
    "num_experts": EXPERTS,
    "top_k": TOP_K,
    "moe_layers": list(LAYERS),
    "weight_precision": "f32",
    "tracer_version": "0",
}


def expert_of(token, position, layer):
    """The first choice of a token, which the second follows."""
    return (token * 3 + position + layer) % EXPERTS


class Runner:
    """What the watch needs of vLLM's V1 runner; its model routes by `expert_of`."""

    def __init__(self, buffer):
        self.buffer = buffer
        self.input_batch = SimpleNamespace(num_reqs=0, req_ids=[])
        self.query_start_loc = SimpleNamespace(np=np.zeros(1, dtype=np.int32))
        self.positions = self.input_ids = None
        self.silent_layers = ()

    def execute_model(self, output):
        rows = [
            (token, position)
            for _, tokens in output.rows
            for position, token in sorted(tokens.items())
        ]
        counts = [len(tokens) for _, tokens in output.rows]
        self.input_batch = SimpleNamespace(
            num_reqs=len(counts), req_ids=[name for name, _ in output.rows]
        )
        self.query_start_loc.np = np.cumsum([0, *counts])
        self.positions = torch.tensor([position for _, position in rows])
        self.input_ids = torch.tensor([token for token, _ in rows])
        for index, layer in enumerate(LAYERS):
            if layer in self.silent_layers:
                continue
            for row, (token, position) in enumerate(rows):
                first = expert_of(token, position, layer)
                self.buffer.column("expert_ids", index)[row] = torch.tensor(
                    [first, (first + 1) % EXPERTS], dtype=torch.uint8
                )
                self.buffer.column("gate_weights", index)[row] = torch.tensor([0.5, 0.25])
        return "output"


class Traffic:
    """A recording engine. ``now``: its clock, seconds since 1970."""

    def __init__(self, lake, *, ring_slots=64, row=None, **settings):
        settings = {"seal_seconds": 5.0, "run_hours": 1, "labels": ("tenant",), **settings}
        self.config = LiveConfig(lake=str(lake), **settings)
        self.now = time.time()
        self.counts = Counts()
        self.errors = []
        self.buffer = RoutingBuffer.allocate(FORMAT, MAX_ROWS, torch.device("cpu"))
        self.drain = Drain(FORMAT.row_bytes, MAX_ROWS, torch.device("cpu"), slots=ring_slots)
        self.runs = LiveRuns(self.config, row or RUN_ROW, {}, lambda: dict(self.counts.dropped))
        self.writer = LakeWriter(
            self.config,
            self.runs,
            row_format=FORMAT,
            layer_ids=LAYERS,
            worker="w0",
            counts=self.counts,
            drop=self.counts.drop,
            period_now=lambda: period_of(self.now, self.config.run_hours),
        )
        self.recorder = Recorder(
            FORMAT,
            TOP_K,
            self.writer,
            limit_bytes=self.config.queue_mb * 1_000_000,
            seal_seconds=self.config.seal_seconds,
            period_of=lambda seconds: period_of(seconds, self.config.run_hours),
            wake_rows=MAX_ROWS,
            drop=self.counts.drop,
            forget=lambda name: self.intake.forget(name),  # noqa: PLW0108 - made below
            failed=self.errors.append,
            clock=lambda: self.now,
        )
        self.intake = Intake(Chooser(self.config, self.counts), self.recorder, self.counts.drop)
        self.runner = Runner(self.buffer)
        watch_traffic(self.runner, self.buffer, self.drain, self.intake, self.errors.append)
        self.writer.start()
        self.recorder.start()

    def step(self, *rows, new=(), ended=(), cached=()):
        """One step: ``rows`` are (request, {position: token}), ``new`` (request, prompt, extra).

        ended: (request, reason, output tokens); cached: (request, tokens) of `new` or resumed ones
        """
        skipped = dict(cached)
        output = SimpleNamespace(
            rows=rows,
            num_scheduled_tokens={name: len(tokens) for name, tokens in rows},
            total_num_scheduled_tokens=sum(len(tokens) for _, tokens in rows),
            finished_req_ids={name for name, _, _ in ended},
            moe_tracer_endings=list(ended),
            scheduled_new_reqs=[
                SimpleNamespace(
                    req_id=name,
                    prompt_token_ids=prompt,
                    prompt_embeds=None,
                    num_computed_tokens=skipped.get(name, 0),
                    sampling_params=SimpleNamespace(extra_args=extra),
                )
                for name, prompt, extra in new
            ],
            scheduled_cached_reqs=SimpleNamespace(resumed_req_ids=set()),
        )
        assert self.runner.execute_model(output) == "output"

    def run(self, name, prompt, output, *, reason="stop", extra=None):
        """A whole request by itself: prompt, then token by token."""
        self.step((name, dict(enumerate(prompt))), new=[(name, prompt, extra)])
        for place, token in enumerate(output[:-1]):
            self.step((name, {len(prompt) + place: token}))
        self.step(ended=[(name, reason, output)])

    def tick(self, seconds=0.0):
        """Let the clock go on, and the recorder look at it."""
        self.now += seconds
        self.recorder.put(Tick())
        self.recorder.join()

    def settle(self, seconds=120.0):
        """Wait until nothing is queued."""
        self.recorder.join()
        until = time.monotonic() + seconds
        while self.writer.queued_bytes and time.monotonic() < until:
            time.sleep(0.01)
        assert not self.writer.queued_bytes

    def close(self, seconds=120.0):
        self.recorder.close()
        assert self.writer.close(seconds)
