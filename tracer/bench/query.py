"""What an answer costs from rollups and from rows, beside the same sums over arrays in memory.

The questions themselves are asked by whoever calls this: here are turns, clocks and what numpy and
pandas take for the choices of one shard that lie in memory, decoded, with numbers for domains.
"""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt

from tracer.bench.loads import Spent, Stopwatch
from tracer.bench.made_routing import NUM_DOMAINS, MadeRouting
from tracer.bench.ratios import Ratio, paired_ratio

__all__ = ["QueryCost", "take_turns", "turns_in_memory"]


@dataclass(frozen=True, slots=True)
class QueryCost:
    """Time of each round by mode, and sizes.

    Modes are rollup, bootstrap, rows, numpy, and pandas where there is one.

    choices: that a turn of a mode is about; first: opening the lake and asking the rollups
    sizes: bytes by table
    """

    num_tokens: int
    num_requests: int
    num_batches: int
    choices: Mapping[str, int]
    first: Spent
    spent: Mapping[str, list[Spent]]
    sizes: Mapping[str, int]

    def mchoices_per_s(self, mode: str) -> float:
        """Million choices in a second of one core, by the median round."""
        return self.choices[mode] / 1e6 / self.cpu_s(mode)

    def cpu_s(self, mode: str) -> float:
        """Compute seconds of the median round."""
        return median(spent.cpu for spent in self.spent[mode])

    def wall_s(self, mode: str) -> float:
        """Seconds on the clock of the median round."""
        return median(spent.wall for spent in self.spent[mode])

    def cost(self, mode: str, against: str) -> Ratio:
        """CPU time per choice of ``mode`` over that of ``against``."""
        return paired_ratio(
            *([s.cpu / self.choices[name] for s in self.spent[name]] for name in (mode, against))
        )

    def of_routing(self, table: str) -> float:
        """Bytes of a table over those of `routing`."""
        return self.sizes[table] / self.sizes["routing"]


def take_turns(
    turns: Mapping[str, Callable[[], object]], rounds: int, note: Callable[[str], None]
) -> dict[str, list[Spent]]:
    """Time of every turn in each of ``rounds``, in random order, after one that is not counted."""
    spent: dict[str, list[Spent]] = {mode: [] for mode in turns}
    order = random.Random(0)
    for turn in turns.values():
        turn()
    for number in range(rounds):
        note(f"round {number + 1} of {rounds}")
        for mode in order.sample(list(turns), len(turns)):
            watch = Stopwatch()
            turns[mode]()
            spent[mode].append(watch.read())
    return spent


def turns_in_memory(made: MadeRouting) -> dict[str, Callable[[], Any]]:
    """Sums by layer, domain and expert of one shard: by numpy, and by pandas if it is there.

    Numpy's turn returns counts int64 and sums float64, [layers, domains, experts].
    """
    rows, experts = made.rows, made.model.num_experts
    choices = [(ids, weights.astype(np.float64).ravel()) for ids, weights in rows.choices(experts)]
    numbers = [int(request.domain.rpartition("-")[2]) for request in rows.requests]
    domain = np.repeat(numbers, rows.row_counts)
    cells = (NUM_DOMAINS, experts)

    def with_numpy() -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        counts, sums = [], []
        for ids, weights in choices:
            cell = (domain[:, None] * experts + ids).ravel()
            counts.append(np.bincount(cell, minlength=NUM_DOMAINS * experts).reshape(cells))
            found = np.bincount(cell, weights, minlength=NUM_DOMAINS * experts)
            sums.append(found.reshape(cells))
        return np.stack(counts), np.stack(sums)

    turns: dict[str, Callable[[], Any]] = {"numpy": with_numpy}
    try:
        import pandas as pd
    except ImportError:
        return turns
    frame = pd.DataFrame(
        {
            "layer_id": np.repeat(np.arange(len(choices), dtype=np.int16), choices[0][0].size),
            "domain": np.tile(np.repeat(domain.astype(np.int8), made.model.top_k), len(choices)),
            "expert_id": np.concatenate([ids.ravel() for ids, _ in choices]),
            "gate_weight": np.concatenate([weights for _, weights in choices]),
        }
    )
    keys = ["layer_id", "domain", "expert_id"]
    turns["pandas"] = lambda: frame.groupby(keys)["gate_weight"].agg(["size", "sum"])
    return turns
