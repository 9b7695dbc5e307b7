"""How much memory the recording side holds over a long run: no engine, made-up rows.

Everything behind the forward pass is real: slots, threads, row log, shards, commits. Rows are
handed over as fast as they are taken, so the writer is what limits, and memory is at its peak.
"""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from tracer.capture.collector import Collector
from tracer.capture.drain import Drain
from tracer.capture.finished import FinishedRequest
from tracer.capture.row_format import Field, RowFormat, id_dtype
from tracer.capture.steps import Step
from tracer.store.lake import Lake
from tracer.store.run_writer import SHARD_CHOICES, RunWriter
from tracer.store.shard import ShardWriter

__all__ = ["Held", "Shape", "measure_memory"]

_STEP_ROWS = 2048
_TOGETHER = 8  # requests in a step
_REQUEST_TOKENS = 1024
_PER_WAVE = _TOGETHER * _REQUEST_TOKENS
_DISTINCT_STEPS = 16
_SAMPLE_SECONDS = 0.02
_BEING_WRITTEN = 3  # batches behind the one that is gathered: see Collector
# Work on a batch, per record: the log's while it takes one (its docstring); a shard's columns of
# request, phase, position and token; and per choice of one layer its copies while they are
# checked, sorted, summed and encoded.
_TAKE_BYTES, _SHARED_BYTES, _LAYER_BYTES = 40, 64, 96


@dataclass(frozen=True, slots=True)
class Shape:
    """The model that the rows could be of; by default OLMoE-1B-7B."""

    num_layers: int = 16
    num_experts: int = 64
    top_k: int = 8

    def row_format(self) -> RowFormat:
        """Records as a capture with bfloat16 weights makes them."""
        return RowFormat(
            self.num_layers,
            (
                Field("gate_weights", torch.bfloat16, self.top_k),
                Field("expert_ids", id_dtype(self.num_experts), self.top_k),
                Field("position", torch.int32, 1, per_layer=False),
                Field("token_id", torch.int32, 1, per_layer=False),
            ),
        )


@dataclass(frozen=True, slots=True)
class Held:
    """What a run of ``tokens`` held, in bytes; without what the process had before.

    peak: resident memory; early: the peak in the first quarter of the run
    slots, log: what drain and row log allocated at most
    formula: what they and the batches on their way to the disk may come to
    """

    tokens: int
    seconds: float
    peak: int
    early: int
    slots: int
    log: int
    formula: int
    stalls: int

    def lines(self) -> list[str]:
        """What it says, for people."""
        waited = f"{self.stalls:,} steps waited for a slot"
        batches = _mb(self.formula - self.slots - self.log)
        parts = f"slots {_mb(self.slots)}, log {_mb(self.log)}, batches on their way {batches}"
        return [
            f"{self.tokens:,} tokens in {self.seconds:,.1f} s; {waited}",
            f"resident at most {_mb(self.peak)}, in the first quarter {_mb(self.early)}",
            f"by formula at most {_mb(self.formula)}: {parts}",
        ]

    def to_dict(self) -> dict[str, Any]:
        """As plain values; all but tokens, seconds and stalls in bytes."""
        named = {"tokens", "seconds", "stalls"}
        return {
            name if name in named else f"{name}_bytes": value
            for name, value in asdict(self).items()
        }


def measure_memory(tokens: int, shape: Shape, folder: Path, note: Callable[[str], None]) -> Held:
    """Record at least ``tokens`` made-up tokens into a lake in ``folder``."""
    row_format = shape.row_format()
    steps = [_records(row_format, shape, seed) for seed in range(_DISTINCT_STEPS)]
    lake = Lake.create(folder / "lake")
    # Libraries load with the first batch; what they take does not grow and is not ours.
    _record(_PER_WAVE, shape, steps, RunWriter(lake, "warm", frozenset(), 0), lambda _: None)
    return _record(tokens, shape, steps, RunWriter(lake, "memory", frozenset(), 0), note)


def _record(
    tokens: int,
    shape: Shape,
    steps: list[torch.Tensor],
    target: RunWriter,
    note: Callable[[str], None],
) -> Held:
    row_format = shape.row_format()
    before, began = _resident(), time.perf_counter()
    drain = Drain(row_format.row_bytes, _STEP_ROWS, torch.device("cpu"))
    writer = ShardWriter(target.lake.storage, target.run_id, shape.num_experts, "bf16")
    collector = Collector(writer, row_format, range(shape.num_layers), "w0")
    collector.start()
    batch_tokens = SHARD_CHOICES // (shape.num_layers * shape.top_k)
    finished: list[FinishedRequest] = []
    done = batch = sealed = log = early = 0
    with _watched() as watch:
        while done < tokens:
            finished += _forward_wave(drain, collector, row_format, steps, done // _PER_WAVE)
            log = max(log, collector.host_bytes)
            done += _PER_WAVE
            if done >= tokens // 4 and not early:
                early = watch[0]
            if done - sealed < batch_tokens and done < tokens:
                continue
            collector.seal(batch, finished)
            batch, sealed, finished = batch + 1, done, []
            for number, files in collector.take_written(wait=done >= tokens).items():
                target.commit(number, files, [])
            note(f"{done:,} of {tokens:,} tokens, {(watch[0] - before) / 1e6:,.0f} MB at most")
    collector.stop()
    waiting = _BEING_WRITTEN * (row_format.row_bytes + 8)  # with a position and a token id each
    checked = shape.num_layers * shape.top_k  # whether any id is missing, one byte each
    work = _TAKE_BYTES + _SHARED_BYTES + _LAYER_BYTES * shape.top_k + checked
    return Held(
        tokens=done,
        seconds=time.perf_counter() - began,
        peak=watch[0] - before,
        early=early - before,
        slots=drain.host_bytes,
        log=log,
        formula=drain.host_bytes + log + (batch_tokens + _PER_WAVE) * (waiting + work),
        stalls=drain.stalls,
    )


def _forward_wave(
    drain: Drain,
    collector: Collector,
    row_format: RowFormat,
    steps: list[torch.Tensor],
    wave: int,
) -> list[FinishedRequest]:
    """Forward some requests from their first token to their last, in step with each other."""
    names = [f"{wave}-{number}" for number in range(_TOGETHER)]
    count = _STEP_ROWS // _TOGETHER
    for begin in range(0, _REQUEST_TOKENS, count):
        storage = steps[(wave + begin // count) % len(steps)]
        columns = row_format.tensors(storage)
        position = torch.arange(begin, begin + count, dtype=torch.int32).repeat(_TOGETHER)
        columns["position"][:, 0] = position
        columns["token_id"][:, 0] = position
        slot = drain.take(storage)
        collector.receive(Step(names, [count] * _TOGETHER, slot))
    tokens = range(_REQUEST_TOKENS + 1)  # one more is sampled and never forwarded
    return [FinishedRequest(name, name, "memory", _REQUEST_TOKENS, tokens) for name in names]


def _records(row_format: RowFormat, shape: Shape, seed: int) -> torch.Tensor:
    """Records of one step: distinct experts by random logits, softmax weights."""
    generator = torch.Generator().manual_seed(seed)
    size = (_STEP_ROWS, shape.num_layers, shape.num_experts)
    scores = torch.randn(size, generator=generator).softmax(-1)
    weights, ids = scores.topk(shape.top_k, dim=-1)
    storage = torch.zeros((_STEP_ROWS, row_format.row_bytes), dtype=torch.uint8)
    columns = row_format.tensors(storage)
    columns["expert_ids"].copy_(ids)
    columns["gate_weights"].copy_(weights)
    return storage


@contextmanager
def _watched() -> Iterator[list[int]]:
    """The most resident bytes so far, kept up to date by a thread until the block ends."""
    most, over = [_resident()], threading.Event()

    def sample() -> None:
        while not over.wait(_SAMPLE_SECONDS):
            most[0] = max(most[0], _resident())

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield most
    finally:
        over.set()
        thread.join()


def _mb(num_bytes: int) -> str:
    return f"{num_bytes / 1e6:,.0f} MB"


def _resident() -> int:
    """Resident memory of this process in bytes; Linux."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
