"""Runs the measurements of `tracer bench` and puts their figures into words."""

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tracer.bench.engine import prepare
from tracer.bench.floor import Floor
from tracer.bench.loads import LOADS
from tracer.bench.memory import Held, Shape, measure_memory
from tracer.bench.models import MODEL_SIZES
from tracer.bench.overhead import Overhead, measure_overhead
from tracer.bench.ratios import Ratio
from tracer.workflow.progress import CaptureProgress, engine_log

__all__ = ["CaptureCost", "bench_capture", "bench_memory"]


@dataclass(frozen=True, slots=True)
class CaptureCost:
    """What capture costs: measurements by the size of the models that were run."""

    engine: str
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
        lines = [f"{self.engine}, {self.pairs} rounds, medians and 95 % intervals"]
        for size, (cost, floor) in self.by_size.items():
            lines.append(
                f"{size}: {floor.record_bytes:,} bytes recorded and {floor.stored_bytes:,.0f}"
                f" stored per token; floor {1e6 * floor.copy_s:.2f} us to copy and"
                f" {1e6 * floor.compress_s:.2f} us to compress of"
                f" {1e6 * cost.off_cpu_s():,.1f} us, a ratio of {_floor_ratio(cost, floor):.4f}"
            )
            lines.append(
                f"{size}: every round is a batch of its own, of which {1e3 * cost.batch_cpu_s:.0f}"
                f" ms are paid once whatever its size; a capture's batches are"
                f" {1 / cost.batch_share:.0f} times larger, CPU time of full / off then"
                f" {_shown(cost.long_run_ratio())}"
            )
        return lines

    def to_dict(self) -> dict[str, Any]:
        """Figures by name; those of models that were not run are null."""
        figures: dict[str, Any] = {"engine": self.engine, "pairs": self.pairs}
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
        by_size = {}
        for size in sizes:
            with tempfile.TemporaryDirectory(prefix="tracer-bench-") as folder:
                by_size[size] = measure_overhead(size, pairs, identity, Path(folder), progress.note)
    return CaptureCost(f"{identity.distribution} {identity.version}", pairs, by_size)


def bench_memory(tokens: int, layers: int, experts: int, top_k: int) -> Held:
    """Measure what recording holds over a run of made-up rows; progress goes to stderr."""
    progress = CaptureProgress(sys.stderr)
    with tempfile.TemporaryDirectory(prefix="tracer-bench-") as folder:
        return measure_memory(tokens, Shape(layers, experts, top_k), Path(folder), progress.note)


def _figures(cost: Overhead | None, floor: Floor | None) -> dict[str, Any]:
    native = cost is not None and "native" in cost.spent
    ratios: dict[str, Ratio | None] = {
        "cpu_ratio": cost.cpu_ratio("full") if cost else None,
        "long_run_cpu_ratio": cost.long_run_ratio() if cost else None,
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
    figures["batch_cpu_s"] = round(cost.batch_cpu_s, 4) if cost else None
    figures["rows"] = cost.rows if cost else None
    figures["hooked_routers"] = cost.hooked if cost else None
    return figures


def _floor_ratio(cost: Overhead, floor: Floor) -> float:
    """The CPU ratio that recording at the floor would have."""
    return 1 + floor.cpu_s / cost.off_cpu_s()


def _shown(ratio: Ratio) -> str:
    return f"{ratio.median:.3f} [{ratio.low:.3f}, {ratio.high:.3f}]"
