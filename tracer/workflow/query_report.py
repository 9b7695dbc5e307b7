"""Puts the figures of `tracer bench query` into words."""

from dataclasses import dataclass
from typing import Any

from tracer.bench.query import QueryCost

__all__ = ["DRAWS", "MODEL", "QueryReport"]

MODEL = "olmoe"
DRAWS = 200
_FEWEST_ROUNDS = 15
# For a billion choices: CPU seconds, times the rollup, million choices a second and core.
_MOST_S, _MOST_BOOTSTRAP_S, _LEAST_RATIO, _LEAST_SPEED = 2, 20, 50, 25
_LEAST_PAIRS_RATIO = 10  # of pandas' time on the clock per choice to that of the query
_PAIR_MODES = ("pairs", "pairs_read", "pairs_numpy", "pairs_pandas")
_ALIKE_MODES = ("alike", "alike_numpy")
_MODES = ("rollup", "bootstrap", "rows", "numpy", "pandas", *_PAIR_MODES, *_ALIKE_MODES)
_WORDS = {
    "rollup": "eci, from usage_by_domain",
    "bootstrap": f"its intervals by {DRAWS} draws, from usage",
    "rows": "eci_from_choices, from routing",
    "numpy": "numpy bincount, one shard in memory",
    "pandas": "pandas group-by, one shard in memory",
    "pairs": "pairs of experts: co_activation, from routing",
    "pairs_read": "pairs: nothing but reading the ids, pyarrow",
    "pairs_numpy": "pairs, straightforward numpy: matrix product, one shard in memory",
    "pairs_pandas": "pairs, straightforward pandas: merge and group-by, one shard in memory",
    "alike": "most alike requests: nearest_requests, from usage",
    "alike_numpy": "most alike, straightforward numpy: requests x requests, in memory",
}
# What is held against what: the straightforward way, or a limit, against the query.
_AGAINST = {mode: modes[0] for modes in (_PAIR_MODES, _ALIKE_MODES) for mode in modes[1:]}


@dataclass(frozen=True, slots=True)
class QueryReport:
    """What a question costs."""

    rounds: int
    cost: QueryCost

    def table(self) -> tuple[list[str], list[list[str]]]:
        """(columns, rows): a row for each mode that ran."""
        cost = self.cost
        columns = ["what", "choices", "CPU s", "wall s", "million choices/s", "CPU / rows"]
        rows = [
            [
                _WORDS[mode],
                f"{cost.choices[mode]:,}",
                f"{cost.cpu_s(mode):.4f}",
                f"{cost.wall_s(mode):.4f}",
                f"{cost.mchoices_per_s(mode):,.1f}",
                "" if mode == "rows" else f"{cost.cost(mode, 'rows').median:.5f}",
            ]
            for mode in cost.spent
        ]
        return columns, rows

    def notes(self) -> list[str]:
        """Lines that belong below the table."""
        cost = self.cost
        ratio = cost.cost("rows", "rollup")
        first, rollups = cost.first, ("usage", "usage_by_domain")
        speed = cost.mchoices_per_s("rows")
        stored = f"{cost.num_requests:,} requests in {cost.num_batches:,} shards"
        between = f"{ratio.median:,.0f} [{ratio.low:,.0f}, {ratio.high:,.0f}]"
        opening = f"{first.cpu:.3f} s of CPU time and {first.wall:.3f} s on the clock"
        lines = [
            f"{cost.num_tokens:,} tokens of {stored}; {self.rounds} rounds, warm, medians",
            f"rollups and rows agree; rows cost {between} times the CPU time of usage_by_domain",
            f"opening the lake and asking the rollup for the first time: {opening}",
            *(
                f"{table}: {cost.sizes[table]:,} bytes, {cost.of_routing(table):.3f} of routing"
                for table in rollups
            ),
            "goals, for a billion choices and by CPU time:",
            f"usage_by_domain: at most {_MOST_S} s, here {cost.cpu_s('rollup'):.2f}",
            f"bootstrap: at most {_MOST_BOOTSTRAP_S} s, here {cost.cpu_s('bootstrap'):.2f}",
            f"rows: at least {_LEAST_RATIO} times usage_by_domain, here {ratio.median:,.0f}",
            f"rows: at least {_LEAST_SPEED} million choices/s, here {speed:.1f}",
        ]
        lines += self._of_pairs()
        if self.rounds < _FEWEST_ROUNDS:
            lines.append(f"fewer than {_FEWEST_ROUNDS} rounds are no result for ratios")
        if "pandas" not in cost.spent:
            lines.append("pandas is not installed")
        return lines

    def _of_pairs(self) -> list[str]:
        cost = self.cost
        lines = []
        for mode, query in _AGAINST.items():
            if mode not in cost.spent:
                continue
            clock, cpu = (
                f"{ratio.median:,.2f} [{ratio.low:,.2f}, {ratio.high:,.2f}]"
                for ratio in (kind(mode, query) for kind in (cost.clock, cost.cost))
            )
            line = f"{_WORDS[mode]}: {clock} of the query's time per choice, {cpu} by CPU time"
            if mode == "pairs_pandas":
                line += f"; at least {_LEAST_PAIRS_RATIO} is the goal"
            lines.append(line)
        held = ", ".join(
            f"{mode} {cost.peaks[mode] / 1e6:,.0f} MB for {cost.choices[mode]:,} choices"
            for mode in cost.peaks
        )
        return [*lines, f"memory held at most: {held}"]

    def to_dict(self) -> dict[str, Any]:
        """Figures by name; those of what did not run are null."""
        cost = self.cost
        ratio = cost.cost("rows", "rollup")
        figures: dict[str, Any] = {
            "model": MODEL,
            "choices": cost.choices["rows"],
            "tokens": cost.num_tokens,
            "requests": cost.num_requests,
            "batches": cost.num_batches,
            "rounds": self.rounds,
            "draws": DRAWS,
            "first_cpu_s": round(cost.first.cpu, 5),
            "first_wall_s": round(cost.first.wall, 5),
            "rows_vs_rollup_cpu_ratio": ratio.rounded,
            "rows_vs_rollup_cpu_ratio_interval": ratio.interval,
        }
        for mode in _MODES:
            there = mode in cost.spent
            figures[f"{mode}_choices"] = cost.choices[mode] if there else None
            figures[f"{mode}_cpu_s"] = round(cost.cpu_s(mode), 5) if there else None
            figures[f"{mode}_wall_s"] = round(cost.wall_s(mode), 5) if there else None
            figures[f"{mode}_mchoices_per_s"] = (
                round(cost.mchoices_per_s(mode), 3) if there else None
            )
            if mode in {"numpy", "pandas"}:
                against = cost.cost("rows", mode) if there else None
                figures[f"rows_vs_{mode}_cpu_ratio"] = against and against.rounded
                figures[f"rows_vs_{mode}_cpu_ratio_interval"] = against and against.interval
            if query := _AGAINST.get(mode):
                for name, kind in (("cpu", cost.cost), ("wall", cost.clock)):
                    against = kind(mode, query) if there else None
                    figures[f"{mode}_vs_{query}_{name}_ratio"] = against and against.rounded
                    interval = against and against.interval
                    figures[f"{mode}_vs_{query}_{name}_ratio_interval"] = interval
            if mode in {*_PAIR_MODES, *_ALIKE_MODES}:
                figures[f"{mode}_peak_bytes"] = cost.peaks.get(mode)
        for table, size in cost.sizes.items():
            figures[f"{table}_bytes"] = size
            if table != "routing":
                figures[f"{table}_of_routing"] = round(cost.of_routing(table), 5)
        return figures
