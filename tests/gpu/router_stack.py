"""A stack of routers with their record ops, replayed step by step as an engine does.

Needs torch and the four modules under test alone. On a CPU the same steps run eagerly, which
proves the logic of the check; on a GPU every step is the replay of a captured CUDA graph.
"""

import random
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch

from tracer.capture.buffer import RoutingBuffer, record
from tracer.capture.drain import Drain
from tracer.capture.row_format import Field, RowFormat, id_dtype

SIZES = (1, 8, 32, 64, 256)  # rows that graphs are captured for
POOL_ROWS = 4099
SKIPPED_LAYER = 1


@dataclass(frozen=True)
class Shape:
    layers: int
    top_k: int
    experts: int
    stored: torch.dtype = torch.bfloat16
    renormalise: bool = False

    def row_format(self):
        return RowFormat(
            self.layers,
            (
                Field("gate_weights", self.stored, self.top_k),
                Field("expert_ids", id_dtype(self.experts), self.top_k),
                Field("position", torch.int32, 1, per_layer=False),
                Field("token_id", torch.int32, 1, per_layer=False),
            ),
        )


@dataclass(frozen=True)
class Step:
    """One replay: its number, rows, the graph's size, its input in the pool, a hook left out."""

    number: int
    rows: int
    size: int
    begin: int
    skips: bool


def plan(count, seed=0):
    """Steps of changing size; every third one leaves a layer unrecorded."""
    chance = random.Random(seed)
    steps = []
    for number in range(count):
        rows = chance.choice((chance.randint(1, 64), chance.randint(1, max(SIZES))))
        size = next(size for size in SIZES if size >= rows)
        begin = chance.randrange(POOL_ROWS - rows)
        steps.append(Step(number, rows, size, begin, skips=number % 3 == 2))
    return steps


class RouterStack:
    """Softmax routers over scaled copies of one static input, all written to one static buffer.

    The logits are products of single elements: with a matrix product the reference could differ
    from the graph in the last bit. What follows them works row by row.
    """

    def __init__(self, shape, device):
        self.shape = shape
        self.form = shape.row_format()
        generator = torch.Generator().manual_seed(1)
        self.pool = torch.randn(POOL_ROWS, shape.experts, generator=generator).to(device)
        self.scale = torch.randn(shape.layers, shape.experts, generator=generator).to(device)
        self.hidden = torch.zeros(max(SIZES), shape.experts, device=device)
        self.buffer = RoutingBuffer.allocate(self.form, max(SIZES), device)

    def route(self, layer, rows):
        """int64 [rows, k] expert ids and float32 [rows, k] gate weights."""
        scores = torch.softmax(self.hidden[:rows] * self.scale[layer], dim=-1)
        weights, ids = torch.topk(scores, self.shape.top_k, dim=-1)
        if self.shape.renormalise:
            weights = weights / weights.sum(dim=-1, keepdim=True)
        return ids, weights

    def forward(self, rows, *, skips=False):
        """What an engine captures into a graph."""
        for layer in range(self.shape.layers):
            ids, weights = self.route(layer, rows)
            if not (skips and layer == SKIPPED_LAYER):
                self._record(layer, ids, weights)

    def _record(self, layer, ids, weights):
        id_bytes = id_dtype(self.shape.experts).itemsize
        weight_bytes = self.shape.stored.itemsize
        at = {
            name: self.form.offsets[name] + layer * self.shape.top_k * num_bytes
            for name, num_bytes in (("expert_ids", id_bytes), ("gate_weights", weight_bytes))
        }
        record(
            self.buffer.storage,
            ids,
            weights,
            at["expert_ids"],
            id_bytes,
            at["gate_weights"],
            weight_bytes,
            0,
        )

    def load(self, step):
        """New input for a step; rows of padding keep what was there."""
        self.hidden[: step.rows].copy_(self.pool[step.begin : step.begin + step.rows])

    def label(self, step):
        """What the engine's own batch says of the rows, written after the forward pass."""
        numbers = torch.full((step.rows,), step.number, device=self.pool.device)
        self.buffer.label(numbers, numbers - step.begin)

    def expected(self, step):
        """uint8 [rows, row_bytes] of a step, without graph, record op, kernel or drain."""
        self.load(step)
        rows = torch.full((step.rows, self.form.row_bytes), 0xFF, dtype=torch.uint8)
        fields = self.form.tensors(rows)
        for layer in range(self.shape.layers):
            if not (step.skips and layer == SKIPPED_LAYER):
                ids, weights = self.route(layer, step.size)
                fields["expert_ids"][:, layer] = (
                    ids[: step.rows].cpu().to(id_dtype(self.shape.experts))
                )
                fields["gate_weights"][:, layer] = weights[: step.rows].cpu().to(self.shape.stored)
        fields["position"][:] = step.number
        fields["token_id"][:] = step.number - step.begin
        return rows.numpy()


def eager(stack):
    """``launch(size, skips)`` without graphs."""
    return lambda size, skips: stack.forward(size, skips=skips)


def captured(stack):
    """``launch(size, skips)`` of CUDA graphs, captured largest first into one memory pool."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # compiles the kernel and fills caches; other sizes need none
        stack.forward(max(SIZES))
    torch.cuda.current_stream().wait_stream(side)
    graphs, pool = {}, None
    for size in reversed(SIZES):
        for skips in (False, True):
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=pool):
                stack.forward(size, skips=skips)
            pool = pool or graph.pool()
            graphs[size, skips] = graph
    return lambda size, skips: graphs[size, skips].replay()


def replay(stack, launch, steps, drain):
    """Rows of every step as a reader on another thread received them; the host never waits."""

    def read(number, slot):
        if number % 500 == 0:
            time.sleep(0.01)  # long enough that the engine runs out of slots
        rows = np.array(slot.rows())
        slot.release()
        return rows

    with ThreadPoolExecutor(1) as reader:
        received = []
        for step in steps:
            stack.load(step)
            stack.buffer.clear(step.rows)
            launch(step.size, step.skips)
            stack.label(step)
            slot = drain.take(stack.buffer.storage[: step.rows])
            received.append(reader.submit(read, step.number, slot))
        return [future.result() for future in received]


def wrong_steps(shape, device, count, make_launch):
    """Steps whose received rows differ from their reference in any byte."""
    stack = RouterStack(shape, device)
    drain = Drain(stack.form.row_bytes, max(SIZES), device)
    steps = plan(count)
    received = replay(stack, make_launch(stack), steps, drain)
    drain.close()
    assert len(received) == count
    return [
        step
        for step, rows in zip(steps, received, strict=True)
        if not np.array_equal(rows, stack.expected(step))
    ]
