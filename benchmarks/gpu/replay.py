# ruff: noqa: INP001, T201 - a script that prints
"""What recording adds to the replay of a CUDA graph, and what moving the rows to the host costs.

Routers alone are captured: a gate in bfloat16, softmax, top-k. A model's step holds attention and
experts besides, so the ratios here are far above those of a served model; the microseconds are
what a step pays. Measured in interleaved rounds, in random order, each beside its own baseline:

  off       the routers alone
  floor     and one kernel per layer that writes four bytes: less than any recording can add
  record    and the record operator: one Triton kernel per layer
  copies    and instead of it two copies per layer, which is what the operator does without Triton
  step      clear, replay with record, take by the drain, read and release on another thread

The transfer is compared with plain asynchronous copies of the same rows into pinned memory, and
with the link's bandwidth for one large block in the same run.

Needs torch, triton and numpy; no vLLM. The last line of output is JSON.
"""

import argparse
import json
import random
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch

from tracer.bench.ratios import paired_ratio
from tracer.capture.buffer import RoutingBuffer, record
from tracer.capture.drain import Drain, Slot
from tracer.capture.row_format import Field, RowFormat, id_dtype

# Long enough that the host's clock and the last wait do not count.
SAMPLE_S = 0.02
LINK_BYTES = 1 << 28
READ_AND_WRITTEN = 2

Work = Callable[[], object]


@dataclass(frozen=True)
class Model:
    """Router shapes of a published model: MoE layers, top-k, experts, hidden size."""

    name: str
    layers: int
    top_k: int
    experts: int
    hidden: int

    def row_format(self) -> RowFormat:
        """As a capture with default settings records it."""
        return RowFormat(
            self.layers,
            (
                Field("gate_weights", torch.bfloat16, self.top_k),
                Field("expert_ids", id_dtype(self.experts), self.top_k),
                Field("position", torch.int32, 1, per_layer=False),
                Field("token_id", torch.int32, 1, per_layer=False),
            ),
        )


MODELS = (
    Model("OLMoE-1B-7B", 16, 8, 64, 2048),
    Model("Qwen3-30B-A3B", 48, 8, 128, 2048),
    Model("DeepSeek-V3", 58, 8, 256, 7168),
)
TINY = (Model("tiny", 2, 2, 8, 16),)


class Stack:
    """The routers of a model and the buffer they are recorded to."""

    def __init__(self, model: Model, rows: int, device: torch.device) -> None:
        self.model, self.rows = model, rows
        self.form = model.row_format()
        self.hidden = torch.randn(rows, model.hidden, device=device).bfloat16()
        self.gates = torch.randn(model.layers, model.hidden, model.experts, device=device)
        self.gates = (self.gates * model.hidden**-0.5).bfloat16()
        self.buffer = RoutingBuffer.allocate(self.form, rows, device)
        self.fields = self.form.tensors(self.buffer.storage)
        self.word = torch.zeros(1, dtype=torch.int32, device=device)

    def forward(self, hook: str) -> None:
        """All routers, each followed by the hook of that name."""
        then = getattr(self, hook)
        for layer in range(self.model.layers):
            scores = torch.softmax(torch.mm(self.hidden, self.gates[layer]).float(), dim=-1)
            weights, ids = torch.topk(scores, self.model.top_k, dim=-1)
            then(layer, ids.int(), weights)  # vLLM's routers answer with int32

    def off(self, layer: int, ids: torch.Tensor, weights: torch.Tensor) -> None:
        """Record nothing."""

    def floor(self, layer: int, ids: torch.Tensor, weights: torch.Tensor) -> None:
        """One launch that does nothing of use."""
        del ids, weights
        self.word.fill_(layer)

    def record(self, layer: int, ids: torch.Tensor, weights: torch.Tensor) -> None:
        """The operator."""
        id_bytes = self.fields["expert_ids"].dtype.itemsize
        weight_bytes = self.fields["gate_weights"].dtype.itemsize
        at = layer * self.model.top_k
        record(
            self.buffer.storage,
            ids,
            weights,
            self.form.offsets["expert_ids"] + at * id_bytes,
            id_bytes,
            self.form.offsets["gate_weights"] + at * weight_bytes,
            weight_bytes,
            0,
        )

    def copies(self, layer: int, ids: torch.Tensor, weights: torch.Tensor) -> None:
        """Two copies."""
        self.fields["expert_ids"][:, layer].copy_(ids)
        self.fields["gate_weights"][:, layer].copy_(weights)


def launcher(stack: Stack, hook: str) -> Work:
    """The forward pass with a hook: a captured graph's replay, on a CPU a plain call."""
    if stack.buffer.storage.device.type == "cpu":
        return lambda: stack.forward(hook)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        stack.forward(hook)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        stack.forward(hook)
    replay: Work = graph.replay
    return replay


def wait_for(device: torch.device) -> None:
    """Until the device has done all it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(work: Work, count: int, device: torch.device) -> float:
    """Of one ``work()`` out of ``count``."""
    wait_for(device)
    began = time.perf_counter()
    for _ in range(count):
        work()
    wait_for(device)
    return (time.perf_counter() - began) / count


class Transfers:
    """Rows of a stack on their way to the host, by the drain or by plain copies."""

    def __init__(self, stack: Stack, launch: Work, device: torch.device) -> None:
        self.stack, self.launch = stack, launch
        self.drain = Drain(stack.form.row_bytes, stack.rows, device)
        self.reader = ThreadPoolExecutor(1)
        self.read: list[Future[None]] = []
        on_cuda = device.type == "cuda"
        self.host = torch.empty(stack.buffer.storage.shape, dtype=torch.uint8, pin_memory=on_cuda)

    def send(self) -> None:
        """One step's rows, read and released on another thread."""
        slot = self.drain.take(self.stack.buffer.storage)
        self.read.append(self.reader.submit(_read, slot))

    def step(self) -> None:
        """All that a recorded step does, but for the engine's own work."""
        self.stack.buffer.clear(self.stack.rows)
        self.launch()
        self.send()

    def copy(self) -> None:
        """One asynchronous copy of the same rows."""
        self.host.copy_(self.stack.buffer.storage, non_blocking=True)

    def arrived(self) -> None:
        """Until every row was read."""
        for future in self.read:
            future.result()
        self.read.clear()


def _read(slot: Slot) -> None:
    slot.rows()
    slot.release()


def measure(model: Model, rows: int, rounds: int, device: torch.device) -> dict[str, Any]:
    """Medians and intervals of one model and batch size; times in microseconds a step."""
    stack = Stack(model, rows, device)
    launches = {hook: launcher(stack, hook) for hook in ("off", "floor", "record", "copies")}
    transfers = Transfers(stack, launches["record"], device)

    def drained(work: Work, count: int) -> float:
        def all_of_it() -> None:
            for _ in range(count):
                work()
            transfers.arrived()

        return seconds(all_of_it, 1, device) / count

    def plainly(work: Work, count: int) -> float:
        return seconds(work, count, device)

    works = {
        **{hook: (launch, plainly) for hook, launch in launches.items()},
        "step": (transfers.step, drained),
        "drain": (transfers.send, drained),
        "copy": (transfers.copy, plainly),
    }
    counts = {}
    for name, (work, how) in works.items():
        how(work, 3)
        counts[name] = max(1, min(20_000, round(SAMPLE_S / how(work, 3))))
    taken: dict[str, list[float]] = {name: [] for name in works}
    order = random.Random(0)
    for _ in range(rounds):
        for name in order.sample(list(works), len(works)):
            work, how = works[name]
            taken[name].append(how(work, counts[name]))
    transfers.drain.close()
    transfers.reader.shutdown()

    num_bytes = rows * stack.form.row_bytes
    answer: dict[str, Any] = {
        "model": model.name,
        "rows": rows,
        "bytes": num_bytes,
        "us": {name: _figures([1e6 * value for value in times]) for name, times in taken.items()},
        "ratio": {
            f"{above}/{below}": _figures(taken[above], taken[below])
            for above, below in (
                ("record", "off"),
                ("floor", "off"),
                ("record", "floor"),
                ("record", "copies"),
                ("step", "off"),
                ("drain", "copy"),
            )
        },
    }
    answer["drain_gb_per_s"] = num_bytes / answer["us"]["drain"][0] / 1e3
    return answer


def _figures(above: list[float], below: list[float] | None = None) -> list[float]:
    """[median, low, high] of the values, or of their ratios round by round."""
    ratio = paired_ratio(above, below or [1.0] * len(above))
    return [float(f"{value:.5g}") for value in (ratio.median, ratio.low, ratio.high)]


def bandwidths(rounds: int, device: torch.device) -> dict[str, Any]:
    """What one large block moves at, GB/s: to pinned memory, and within the device."""
    block = torch.ones(LINK_BYTES if device.type == "cuda" else 1 << 20, dtype=torch.uint8)
    block = block.to(device)
    host = torch.empty(block.shape, dtype=torch.uint8, pin_memory=device.type == "cuda")
    twin = torch.empty_like(block)
    to_host, within = [], []
    for _ in range(rounds):
        to_host.append(seconds(lambda: host.copy_(block, non_blocking=True), 4, device))
        within.append(seconds(lambda: twin.copy_(block), 4, device))
    return {
        "to_host_gb_per_s": _figures([len(block) / value / 1e9 for value in to_host]),
        "device_gb_per_s": _figures(
            [READ_AND_WRITTEN * len(block) / value / 1e9 for value in within]
        ),
    }


def show(found: dict[str, Any], limits: dict[str, Any]) -> None:
    """One shape, each figure beside what it is measured against."""
    us, ratio = found["us"], found["ratio"]
    link = limits["to_host_gb_per_s"][0]
    layers_of = next(m.layers for m in (*MODELS, *TINY) if m.name == found["model"])
    added = us["record"][0] - us["off"][0]
    least = us["floor"][0] - us["off"][0]
    print(
        f"{found['model']:14} {found['rows']:5} rows  off {us['off'][0]:9.1f} us"
        f"  record/off {_text(ratio['record/off'])}  step/off {_text(ratio['step/off'])}\n"
        f"{'':27} added {added:8.1f} us ({added / layers_of:.2f} a layer), empty kernels"
        f" {least:.1f} us  record/copies {_text(ratio['record/copies'])}\n"
        f"{'':27} drain {found['drain_gb_per_s']:8.2f} GB/s, link {link:.2f}"
        f" GB/s, at the link's speed {found['bytes'] / link / 1e3:.1f} us"
        f"  drain/copy {_text(ratio['drain/copy'])}"
    )


def _text(figures: list[float]) -> str:
    return f"{figures[0]:.3f} [{figures[1]:.3f}, {figures[2]:.3f}]"


def main() -> int:
    """Parse, measure, print; 2 without a CUDA device."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 32, 256, 8192])
    arguments = parser.parse_args()
    dry = arguments.device == "cpu"
    if not dry and not torch.cuda.is_available():
        print(
            "replay.py: torch finds no CUDA device; --device cpu only proves that the script runs",
            file=sys.stderr,
        )
        return 2
    device = torch.device(arguments.device)
    models, sizes = (TINY, [1, 4]) if dry else (MODELS, arguments.rows)
    name = "cpu" if dry else torch.cuda.get_device_name()
    if dry:
        print("a dry run, eager, on a CPU: these figures measure nothing")
    torch.manual_seed(0)
    limits = bandwidths(arguments.rounds, device)
    print(f"{name}, torch {torch.__version__}, {arguments.rounds} rounds, medians [95 % interval]")
    found = []
    for model in models:
        for rows in sizes:
            found.append(measure(model, rows, arguments.rounds, device))
            show(found[-1], limits)
    print(
        json.dumps(
            {
                "measurement": not dry,
                "device": name,
                "rounds": arguments.rounds,
                "limits": limits,
                "shapes": found,
            }
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
