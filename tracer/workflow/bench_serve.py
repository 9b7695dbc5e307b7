"""Runs the measurement of `tracer bench serve` and puts its figures into words."""

import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tracer.bench.ratios import Ratio
from tracer.bench.serve import MODES, QUANTITIES, ServeCost, measure_serving
from tracer.bench.serve_load import Load
from tracer.capture.engine_setup import find_engine
from tracer.workflow.progress import CaptureProgress, engine_log

__all__ = ["BenchServe", "bench_serve"]

# As in `tracer bench capture`.
_FEWEST_PAIRS = 15
_UNITS = {"ttft_s": 1e3, "itl_s": 1e3, "itl_p99_s": 1e3, "tokens_per_s": 1.0, "cpu_s": 1.0}
_NAMES = {
    "ttft_s": "time to first token, ms",
    "itl_s": "between tokens, ms",
    "itl_p99_s": "between tokens, 99th percentile, ms",
    "tokens_per_s": "generated tokens/s",
    "cpu_s": "CPU time of a turn, s",
}


@dataclass(frozen=True, slots=True)
class BenchServe:
    """What live capture cost the clients."""

    engine: str
    size: str
    pairs: int
    cost: ServeCost

    def table(self) -> tuple[list[str], list[list[str]]]:
        """(columns, rows): a row for each quantity."""
        columns = ["of the clients", "off", "stopped / off", "on / off"]
        rows = [
            [
                _NAMES[quantity],
                f"{self.cost.typical(quantity, 'off') * _UNITS[quantity]:,.2f}",
                *(_shown(self.cost.ratio(quantity, mode)) for mode in MODES[1:]),
            ]
            for quantity in QUANTITIES
        ]
        return columns, rows

    def notes(self) -> list[str]:
        """Lines that belong below the table."""
        load, floor = self.cost.load, self.cost.floor
        lines = [
            (
                f"{self.engine}, {self.size}: {load.clients} clients, prompts of"
                f" {load.prompt_tokens} and outputs of {load.output_tokens} tokens,"
                f" {self.pairs} pairs, medians and 95 % sign-test intervals"
            ),
            (
                f"{floor.record_bytes:,} bytes recorded and {floor.stored_bytes:,.0f} stored per"
                " token; copying and compressing them alone would be a ratio of CPU time of"
                f" {self.cost.floor_ratio():.4f}"
            ),
        ]
        if self.pairs < _FEWEST_PAIRS:
            lines.append(f"fewer than {_FEWEST_PAIRS} pairs are no result")
        return lines

    def to_dict(self) -> dict[str, Any]:
        """Figures by name."""
        figures: dict[str, Any] = {
            "engine": self.engine,
            "model_size": self.size,
            "pairs": self.pairs,
            **asdict(self.cost.load),
        }
        for quantity in QUANTITIES:
            figures[f"off_{quantity}"] = round(self.cost.typical(quantity, "off"), 6)
            for mode in MODES[1:]:
                ratio = self.cost.ratio(quantity, mode)
                figures[f"{mode}_{quantity}_ratio"] = ratio.rounded
                figures[f"{mode}_{quantity}_ratio_interval"] = ratio.interval
        figures["floor_cpu_ratio"] = round(self.cost.floor_ratio(), 4)
        figures["record_bytes"] = self.cost.floor.record_bytes
        figures["recorded_requests"] = self.cost.counts.recorded
        figures["dropped_requests"] = sum(self.cost.counts.dropped.values())
        return figures


def bench_serve(size: str, pairs: int, load: Load) -> BenchServe:
    """Measure one model; progress goes to stderr.

    Raises:
        TracerError: the engine is missing or fails.
    """
    identity = find_engine()
    with (
        engine_log("bench", verbose=False) as (terminal, _),
        tempfile.TemporaryDirectory(prefix="tracer-bench-") as folder,
    ):
        progress = CaptureProgress(terminal)
        cost = measure_serving(size, pairs, load, Path(folder), progress.note)
    return BenchServe(f"{identity.distribution} {identity.version}", size, pairs, cost)


def _shown(ratio: Ratio) -> str:
    return f"{ratio.median:.3f} [{ratio.low:.3f}, {ratio.high:.3f}]"
