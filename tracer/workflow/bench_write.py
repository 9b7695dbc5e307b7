"""Runs the measurement of `tracer bench write` and puts its figures into words."""

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tracer.bench.made_routing import MADE_MODELS
from tracer.bench.ratios import Ratio
from tracer.bench.write import MODES, WriteCost, measure_write
from tracer.store.run_writer import SHARD_CHOICES
from tracer.workflow.progress import CaptureProgress

__all__ = ["MODEL_NAMES", "WriteReport", "bench_write"]

MODEL_NAMES = tuple(MADE_MODELS)
_FEWEST_ROUNDS = 15
_MOST_BYTES, _LEAST_RATIO, _MOST_ON_TOP = 15.6, 0.8, 0.25
_WORDS = {
    "lake": "all tables and their commit",
    "sums": "routing and both rollups",
    "rows": "routing alone",
    "pyarrow": "routing alone, by pyarrow",
    "zstd": "zstd level 1 of the same bytes",
    "copy": "memcpy of the same bytes",
}


@dataclass(frozen=True, slots=True)
class WriteReport:
    """What writing the shape of one model costs."""

    name: str
    rounds: int
    cost: WriteCost

    def table(self) -> tuple[list[str], list[list[str]]]:
        """(columns, rows): a row for each mode."""
        cost, sizes = self.cost, self.cost.sizes
        files = sizes.files
        stored: dict[str, float] = {
            "lake": sum(files.values()),
            "sums": files["routing"] + files["usage"] + files["usage_by_domain"],
            "rows": files["routing"],
            "pyarrow": sizes.pyarrow,
            "zstd": sizes.zstd,
        }
        columns = ["what", "million choices/s", "speed / pyarrow", "bytes per token and layer"]
        rows = [
            [
                _WORDS[mode],
                f"{cost.mchoices_per_s(mode):,.2f}",
                "" if mode == "pyarrow" else _shown(cost.speed(mode, "pyarrow")),
                f"{sizes.per_row(stored[mode]):.2f}" if mode in stored else "",
            ]
            for mode in MODES
        ]
        return columns, rows

    def notes(self) -> list[str]:
        """Lines that belong below the table."""
        cost, sizes = self.cost, self.cost.sizes
        raw, code = cost.raw_bytes_per_row, sizes.per_row(sizes.code)
        every = sizes.per_row(sum(sizes.files.values()))
        by_table = ", ".join(f"{t} {sizes.per_row(n):.2f}" for t, n in sizes.files.items())
        size = f"{cost.num_tokens:,} tokens of {cost.num_requests:,} requests"
        method = f"CPU time, {self.rounds} rounds, medians and 95 % sign-test intervals"
        against = f"{every / code:.2f} of that code and {every / raw:.2f} of raw"
        fast = cost.speed("lake", "pyarrow").median
        on_top, of_pyarrow = cost.rollups_of("rows"), cost.rollups_of("pyarrow")
        routing = sizes.per_row(sizes.files["routing"])
        added = f"{of_pyarrow.median:.2f} (of routing's {on_top.median:.2f})"
        lines = [
            f"{self.name}: {size}, {cost.num_choices:,} choices; {method}",
            f"bytes per token and layer: {by_table}",
            f"raw, without keys, {raw}; order-0 code of ids and weights {code:.2f}",
            f"all tables {every:.2f}, {against}",
            f"rollups add {_shown(of_pyarrow)} of pyarrow's time, {_shown(on_top)} of routing's",
            f"goal at k = 8: routing at most {_MOST_BYTES} bytes with its keys, here {routing:.2f}",
            f"goal: all tables at least {_LEAST_RATIO} of pyarrow's speed, here {fast:.2f}",
            f"goal: rollups add at most {_MOST_ON_TOP} of pyarrow's time, here {added}",
        ]
        if self.rounds < _FEWEST_ROUNDS:
            lines.append(f"fewer than {_FEWEST_ROUNDS} rounds are no result")
        return lines

    def to_dict(self) -> dict[str, Any]:
        """Figures by name; speeds in million choices per second of one core."""
        cost, sizes = self.cost, self.cost.sizes
        every = sum(sizes.files.values())
        figures: dict[str, Any] = {
            "model": self.name,
            "tokens": cost.num_tokens,
            "requests": cost.num_requests,
            "choices": cost.num_choices,
            "rows": sizes.num_rows,
            "top_k": cost.model.top_k,
            "rounds": self.rounds,
            "mchoices_per_s": round(cost.mchoices_per_s("lake"), 3),
        }
        for mode in MODES[1:]:
            figures[f"{mode}_mchoices_per_s"] = round(cost.mchoices_per_s(mode), 3)
        for name, of, ratio in (
            ("write_ratio", "_vs_pyarrow", cost.speed("lake", "pyarrow")),
            ("rows_ratio", "_vs_pyarrow", cost.speed("rows", "pyarrow")),
            ("zstd_ratio", "_vs_pyarrow", cost.speed("zstd", "pyarrow")),
            ("rollups_on_top", "", cost.rollups_of("rows")),
            ("rollups_of_pyarrow", "", cost.rollups_of("pyarrow")),
        ):
            figures[name + of] = ratio.rounded
            figures[f"{name}_interval"] = ratio.interval
        for table, size in sizes.files.items():
            figures[f"{table}_bytes"] = size
        for name, value in (
            ("routing", sizes.files["routing"]),
            ("all", every),
            ("pyarrow", sizes.pyarrow),
            ("zstd", sizes.zstd),
            ("code", sizes.code),
        ):
            figures[f"bytes_per_row_{name}"] = round(sizes.per_row(value), 4)
        figures["bytes_per_row_raw"] = cost.raw_bytes_per_row
        return figures


def bench_write(name: str, tokens: int | None, rounds: int) -> WriteReport:
    """Measure the shape of model ``name``; progress goes to stderr.

    Args:
        name: one of ``MODEL_NAMES``.
        tokens: in a shard; by default as many as a capture gathers.
        rounds: turns of every mode.
    """
    model = MADE_MODELS[name]
    count = tokens or SHARD_CHOICES // (model.num_layers * model.top_k)
    progress = CaptureProgress(sys.stderr)
    with tempfile.TemporaryDirectory(prefix="tracer-bench-") as folder:
        cost = measure_write(model, count, rounds, Path(folder), progress.note)
    return WriteReport(name, rounds, cost)


def _shown(ratio: Ratio) -> str:
    return f"{ratio.median:.3f} [{ratio.low:.3f}, {ratio.high:.3f}]"
