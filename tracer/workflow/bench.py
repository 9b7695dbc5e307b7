"""Runs the measurements of `tracer bench capture` and puts their figures into words.

Nothing here loads torch before ``prepare`` has settled its threads: see ``tracer.bench.engine``.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tracer.bench.engine import fast_dtype, prepare
from tracer.bench.floor import Floor
from tracer.bench.loads import LOADS
from tracer.bench.models import MODEL_SIZES
from tracer.bench.overhead import Overhead, measure_overhead
from tracer.bench.ratios import Ratio
from tracer.capture.recording import SEAL_SECONDS
from tracer.store.run_writer import SHARD_CHOICES
from tracer.workflow.progress import CaptureProgress, engine_log

__all__ = ["CaptureCost", "bench_capture"]

# With fewer an interval leaves out two ratios at most, so any two disturbed pairs decide it.
_FEWEST_PAIRS = 15


@dataclass(frozen=True, slots=True)
class CaptureCost:
    """What capture costs: measurements by the size of the models that were run.

    dtype: what the models computed in
    """

    engine: str
    dtype: str
    pairs: int
    by_size: dict[str, tuple[Overhead, Floor]]

    def table(self) -> tuple[list[str], list[list[str]]]:
        """(columns, rows): a row for each model, load and mode."""
        columns = ["model", "load", "mode", "tokens/s", "CPU time / off", "wall time / off"]
        rows = [
            [
                size,
                load,
                mode,
                f"{cost.tokens_per_s(mode, load):,.0f}",
                "" if mode == "off" else _shown(cost.cpu_ratio(mode, load)),
                "" if mode == "off" else _shown(cost.wall_ratio(mode, load)),
            ]
            for size, (cost, _) in self.by_size.items()
            for load in cost.tokens
            for mode in cost.spent
        ]
        return columns, rows

    def notes(self) -> list[str]:
        """Lines that belong below the table."""
        engine = f"{self.engine} in {self.dtype} on one thread"
        lines = [f"{engine}, {self.pairs} pairs, medians and 95 % sign-test intervals"]
        if self.pairs < _FEWEST_PAIRS:
            lines.append(f"fewer than {_FEWEST_PAIRS} pairs are no result")
        for size, (cost, floor) in self.by_size.items():
            lines.append(
                f"{size}: {floor.record_bytes:,} bytes recorded and {floor.stored_bytes:,.0f}"
                f" stored per token; floor {1e6 * floor.copy_s:.2f} us to copy and"
                f" {1e6 * floor.compress_s:.2f} us to compress of"
                f" {1e6 * cost.off_cpu_s():,.1f} us, a ratio of {_floor_ratio(cost, floor):.4f}"
            )
            lines.append(
                f"{size}: batches written {len(cost.batches)}, {cost.batch_choices():,.0f} choices"
                f" and {cost.batch_cpu_s():.2f} s of CPU time each, shared by all pairs; a capture"
                f" writes one in {SHARD_CHOICES:,} choices or {SEAL_SECONDS:.0f} s of the engine,"
                " so smaller ones make full look dearer than it is"
            )
        return lines

    def to_dict(self) -> dict[str, Any]:
        """Figures by name; those of models that were not run are null."""
        figures: dict[str, Any] = {
            "engine": self.engine,
            "dtype": self.dtype,
            "pairs": self.pairs,
            "full_batch_choices": SHARD_CHOICES,
        }
        for size in MODEL_SIZES:
            for name, value in _figures(*self.by_size.get(size, (None, None))).items():
                figures[f"{size}_{name}"] = value
        return figures


def bench_capture(sizes: Sequence[str], pairs: int) -> CaptureCost:
    """Measure the models of ``sizes``; progress goes to stderr.

    Raises:
        TracerError: the engine is missing or fails.
    """
    with engine_log("bench", verbose=False) as (terminal, _):
        progress = CaptureProgress(terminal)
        progress.note("importing the engine")
        identity = prepare()
        dtype = fast_dtype()
        by_size = {}
        for size in sizes:
            with tempfile.TemporaryDirectory(prefix="tracer-bench-") as folder:
                by_size[size] = measure_overhead(
                    size, pairs, identity, dtype=dtype, folder=Path(folder), note=progress.note
                )
    return CaptureCost(f"{identity.distribution} {identity.version}", dtype, pairs, by_size)


def _figures(cost: Overhead | None, floor: Floor | None) -> dict[str, Any]:
    native = cost is not None and "native" in cost.spent
    ratios: dict[str, Ratio | None] = {
        "cpu_ratio": cost.cpu_ratio("full") if cost else None,
        "hook_cpu_ratio": cost.cpu_ratio("hook") if cost else None,
        "native_cpu_ratio": cost.cpu_ratio("native") if cost and native else None,
        "vs_native_cpu_ratio": cost.cpu_ratio("full", against="native")
        if cost and native
        else None,
        "wall_ratio": cost.wall_ratio("full") if cost else None,
    }
    for load in LOADS["mid"]:
        name = f"{load.name}_cpu_ratio"
        ratios[name] = cost.cpu_ratio("full", load.name) if cost else None
    figures: dict[str, Any] = {}
    for name, ratio in ratios.items():
        figures[name] = ratio and ratio.rounded
        figures[f"{name}_interval"] = ratio and ratio.interval
    figures["floor_cpu_ratio"] = round(_floor_ratio(cost, floor), 4) if cost and floor else None
    figures["batches"] = len(cost.batches) if cost else None
    figures["batch_choices"] = round(cost.batch_choices()) if cost else None
    figures["batch_cpu_s"] = round(cost.batch_cpu_s(), 4) if cost else None
    figures["rows"] = cost.rows if cost else None
    figures["hooked_routers"] = cost.hooked if cost else None
    return figures


def _floor_ratio(cost: Overhead, floor: Floor) -> float:
    """The CPU ratio that recording at the floor would have."""
    return 1 + floor.cpu_s / cost.off_cpu_s()


def _shown(ratio: Ratio) -> str:
    return f"{ratio.median:.3f} [{ratio.low:.3f}, {ratio.high:.3f}]"
