"""Runs the measurement of `tracer bench query` and puts its figures into words."""

import math
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tracer.analysis.bootstrap import percentile_interval, poisson_weights
from tracer.analysis.measures.catalogue import measure_named
from tracer.analysis.measures.inputs import Asked, make_inputs
from tracer.analysis.request_usage import RequestLayers, domain_contributions, request_layers
from tracer.analysis.sql import connect, run_query
from tracer.bench.loads import Stopwatch
from tracer.bench.made_lake import fill_lake
from tracer.bench.made_routing import MADE_MODELS, make_routing
from tracer.bench.query import (
    QueryCost,
    pairs_in_memory,
    peak_bytes,
    read_choices,
    take_turns,
    turns_in_memory,
)
from tracer.errors import DamagedDataError, InputError
from tracer.store.run_writer import SHARD_CHOICES
from tracer.workflow.progress import CaptureProgress

__all__ = ["QueryReport", "bench_query"]

_RUN = "bench"
_MODEL = "olmoe"
_KEYS = ["layer_id", "domain", "expert_id"]
_SUM_ERROR = 1e-9  # relative; both add float64 numbers, in another order
_FEWEST_ROUNDS = 15
_DRAWS, _SEED, _LEVEL = 200, 1, 0.95
# For a billion choices: CPU seconds, times the rollup, million choices a second and core.
_MOST_S, _MOST_BOOTSTRAP_S, _LEAST_RATIO, _LEAST_SPEED = 2, 20, 50, 25
_LEAST_PAIRS_RATIO = 10  # of pandas' time on the clock per choice to that of the query
_PAIRS = "co_activation"
_PAIR_MODES = ("pairs", "pairs_read", "pairs_numpy", "pairs_pandas")
_MODES = ("rollup", "bootstrap", "rows", "numpy", "pandas", *_PAIR_MODES)
_WORDS = {
    "rollup": "eci, from usage_by_domain",
    "bootstrap": f"its intervals by {_DRAWS} draws, from usage",
    "rows": "eci_from_choices, from routing",
    "numpy": "numpy bincount, one shard in memory",
    "pandas": "pandas group-by, one shard in memory",
    "pairs": "pairs of experts: co_activation, from routing",
    "pairs_read": "pairs: nothing but reading the ids, pyarrow",
    "pairs_numpy": "pairs, straightforward numpy: matrix product, one shard in memory",
    "pairs_pandas": "pairs, straightforward pandas: merge and group-by, one shard in memory",
}


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
        for mode in _PAIR_MODES[1:]:
            if mode not in cost.spent:
                continue
            clock, cpu = (
                f"{ratio.median:,.2f} [{ratio.low:,.2f}, {ratio.high:,.2f}]"
                for ratio in (kind(mode, "pairs") for kind in (cost.clock, cost.cost))
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
            "model": _MODEL,
            "choices": cost.choices["rows"],
            "tokens": cost.num_tokens,
            "requests": cost.num_requests,
            "batches": cost.num_batches,
            "rounds": self.rounds,
            "draws": _DRAWS,
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
            if mode in _PAIR_MODES[1:]:
                for name, kind in (("cpu", cost.cost), ("wall", cost.clock)):
                    against = kind(mode, "pairs") if there else None
                    figures[f"{mode}_vs_pairs_{name}_ratio"] = against and against.rounded
                    interval = against and against.interval
                    figures[f"{mode}_vs_pairs_{name}_ratio_interval"] = interval
            if mode in _PAIR_MODES:
                figures[f"{mode}_peak_bytes"] = cost.peaks.get(mode)
        for table, size in cost.sizes.items():
            figures[f"{table}_bytes"] = size
            if table != "routing":
                figures[f"{table}_of_routing"] = round(cost.of_routing(table), 5)
        return figures


def bench_query(choices: int, rounds: int, keep: Path | None) -> QueryReport:
    """Measure questions to a run of at least ``choices`` choices; progress goes to stderr.

    Args:
        choices: number of them; batches repeat the rows of one, under other request ids.
        rounds: turns of every mode.
        keep: folder that the lake is made in and stays in; by default a temporary one.

    Raises:
        InputError: ``keep`` is not a new or empty folder.
        DamagedDataError: rollups and rows do not give the same answer, or pairs are miscounted.
    """
    if keep is not None and keep.exists() and (not keep.is_dir() or any(keep.iterdir())):
        raise InputError(f"{keep} is not empty", "name a new folder for --keep.")
    with tempfile.TemporaryDirectory(prefix="tracer-bench-") as folder:
        return QueryReport(rounds, _measure(choices, rounds, keep or Path(folder) / "lake"))


def _measure(choices: int, rounds: int, folder: Path) -> QueryCost:
    model = MADE_MODELS[_MODEL]
    batches = math.ceil(choices / SHARD_CHOICES)  # none larger than a capture writes
    tokens = math.ceil(choices / batches / (model.num_layers * model.top_k))
    progress = CaptureProgress(sys.stderr)
    progress.note(f"making {tokens:,} tokens")
    made = make_routing(model, tokens)
    lake, sizes = fill_lake(folder, made, batches, _RUN, progress.note)
    binds = {"run_id": _RUN, "tokens": "all"}
    watch = Stopwatch()
    con = connect(lake)
    first = run_query(con, "eci", **binds)
    opened = watch.read()
    run = lake.run(_RUN)
    files = lake.files("routing", _RUN)

    def count_pairs() -> Any:
        make_inputs(con, measure_named(_PAIRS).reads, Asked(run, "all", {}))
        return run_query(con, f"measures/{_PAIRS}")

    pairs = {
        "pairs": count_pairs,
        "pairs_read": lambda: read_choices(files),
        **pairs_in_memory(made),
    }
    # Before anything else asks for much: memory that was held once is not always given back.
    peaks = {mode: peak_bytes(turn) for mode, turn in pairs.items()}
    _same_pairs(pairs["pairs"](), pairs["pairs_numpy"](), batches)
    _same_answer(first, run_query(con, "eci_from_choices", **binds))

    domains = first["domain"].unique()

    def drawn_requests() -> RequestLayers:
        return request_layers(con, run, tokens="all", domains={}, counted=domains)

    _same_shares(first, drawn_requests(), run["moe_layers"])

    def intervals() -> None:
        requests = drawn_requests()
        weights = poisson_weights(len(requests.domain), _DRAWS, _SEED)
        for layer_id in run["moe_layers"]:
            percentile_interval(_contributions(requests, layer_id, weights), _LEVEL)

    turns = {
        "rollup": lambda: run_query(con, "eci", **binds),
        "bootstrap": intervals,
        "rows": lambda: run_query(con, "eci_from_choices", **binds),
        **turns_in_memory(made),
        **pairs,
    }
    spent = take_turns(turns, rounds, progress.note)
    con.close()
    stored = made.num_choices * batches
    in_lake = {"rollup", "bootstrap", "rows", "pairs", "pairs_read"}
    return QueryCost(
        tokens * batches,
        len(made.rows.requests) * batches,
        batches,
        {mode: stored if mode in in_lake else made.num_choices for mode in spent},
        opened,
        spent,
        sizes,
        peaks,
    )


def _same_answer(rollup: Any, rows: Any) -> None:
    rollup, rows = rollup.sort(_KEYS), rows.sort(_KEYS)
    counted = [*_KEYS, "num_choices", "num_tokens"]
    apart = rollup["num_choices"].sum() == 0 or not rollup.select(counted).equals(
        rows.select(counted)
    )
    if apart or ((rollup["eci"] - rows["eci"]).abs() / rows["eci"]).max() > _SUM_ERROR:
        raise DamagedDataError("the queries eci and eci_from_choices do not agree")


def _same_pairs(found: Any, counts: Any, batches: int) -> None:
    """``counts``: of one batch, [layers, experts, experts]; all batches have the same rows."""
    places = (found[name].to_numpy() for name in ("layer_id", "expert_id", "second_expert_id"))
    if not (found["num_tokens"].to_numpy() == batches * counts[tuple(places)]).all():
        raise DamagedDataError("the measure co_activation does not count the pairs of the rows")


def _contributions(
    requests: RequestLayers, layer_id: int, weights: npt.NDArray[np.uint8] | None = None
) -> npt.NDArray[np.float64]:
    """Of each draw, as an audit makes them; as recorded without weights."""
    usage, labels = requests.layer(layer_id), requests.domain[None]
    return domain_contributions(usage, labels, len(requests.domains), weights)[0]


def _same_shares(rollup: Any, requests: RequestLayers, layer_ids: Iterable[int]) -> None:
    shares = {layer_id: _contributions(requests, layer_id)[0] for layer_id in layer_ids}
    places = {domain: place for place, domain in enumerate(requests.domains)}
    for layer_id, domain, expert, eci in rollup.select(*_KEYS, "eci").iter_rows():
        if not abs(shares[layer_id][places[domain], expert] - eci) <= _SUM_ERROR * eci:
            raise DamagedDataError("the query eci and the sums in usage do not agree")
