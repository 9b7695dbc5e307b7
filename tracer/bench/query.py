"""What an answer costs from rollups and from rows, beside the same sums over arrays in memory.

The questions themselves are asked by whoever calls this: here are turns, clocks and what numpy and
pandas take for the choices of one shard that lie in memory, decoded, with numbers for domains and
tokens; and what reading choices takes, which no answer from rows can do without.
"""

import random
import resource
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from tracer.bench.loads import Spent, Stopwatch
from tracer.bench.made_routing import NUM_DOMAINS, MadeRouting
from tracer.bench.ratios import Ratio, paired_ratio

__all__ = [
    "QueryCost",
    "nearest_in_memory",
    "pairs_in_memory",
    "peak_bytes",
    "read_choices",
    "take_turns",
    "turns_in_memory",
]

_SAMPLE_SECONDS = 0.01


@dataclass(frozen=True, slots=True)
class QueryCost:
    """Time of each round by mode, and sizes.

    Modes are rollup, bootstrap, rows, numpy, pairs, pairs_read, pairs_numpy, and where there is
    pandas also pandas and pairs_pandas; alike and alike_numpy.

    choices: that a turn of a mode is about; first: opening the lake and asking the rollups
    sizes: bytes by table; peaks: bytes that the modes of pairs and of alike requests held at most
    """

    num_tokens: int
    num_requests: int
    num_batches: int
    choices: Mapping[str, int]
    first: Spent
    spent: Mapping[str, list[Spent]]
    sizes: Mapping[str, int]
    peaks: Mapping[str, int]

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

    def clock(self, mode: str, against: str) -> Ratio:
        """Time on the clock per choice of ``mode`` over that of ``against``."""
        return paired_ratio(
            *([s.wall / self.choices[name] for s in self.spent[name]] for name in (mode, against))
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


def pairs_in_memory(made: MadeRouting) -> dict[str, Callable[[], Any]]:
    """Tokens of one shard that chose two experts, by layer and pair: by numpy and by pandas.

    Numpy's turn multiplies a table of zeros and ones, tokens x experts, with itself, layer by
    layer, and returns int64 [layers, experts, experts]. Pandas' turn merges the choices with
    themselves by layer and token and groups them by pair.
    """
    experts = made.model.num_experts
    layers = [ids for ids, _ in made.rows.choices(experts)]
    places = np.arange(len(layers[0]))[:, None]

    def with_numpy() -> npt.NDArray[np.int64]:
        counts = []
        for ids in layers:
            chosen = np.zeros((len(ids), experts), dtype=np.float32)  # exact to 16 million tokens
            chosen[places, ids] = 1
            counts.append(chosen.T @ chosen)
        return np.stack(counts).astype(np.int64)

    turns: dict[str, Callable[[], Any]] = {"pairs_numpy": with_numpy}
    try:
        import pandas as pd
    except ImportError:
        return turns
    tokens = np.repeat(np.arange(len(layers[0]), dtype=np.int32), made.model.top_k)
    frame = pd.DataFrame(
        {
            "layer_id": np.repeat(np.arange(len(layers), dtype=np.int16), layers[0].size),
            "token": np.tile(tokens, len(layers)),
            "expert_id": np.concatenate([ids.ravel() for ids in layers]),
        }
    )

    def with_pandas() -> Any:
        pairs = frame.merge(frame, on=["layer_id", "token"], suffixes=("", "_second"))
        pairs = pairs[pairs["expert_id"] < pairs["expert_id_second"]]
        return pairs.groupby(["layer_id", "expert_id", "expert_id_second"]).size()

    turns["pairs_pandas"] = with_pandas
    return turns


def nearest_in_memory(units: Iterable[npt.NDArray[np.float64]]) -> list[npt.NDArray[np.int64]]:
    """Place of the most alike other row of each, by layer: of a matrix of all pairs of rows.

    Args:
        units: of a layer, [requests, experts], rows of length 1.
    """
    places = []
    for rows in units:
        cosine = rows @ rows.T
        np.fill_diagonal(cosine, -1)
        places.append(cosine.argmax(axis=1))
    return places


def read_choices(files: Iterable[str]) -> int:
    """Decode the layers and expert ids of `routing`, as pyarrow does; gives the number of ids."""
    count = 0
    for file in files:
        with pq.ParquetFile(file) as opened:
            for batch in opened.iter_batches(columns=["layer_id", "expert_ids.list.element"]):
                count += len(batch["expert_ids"].values)
    return count


def peak_bytes(turn: Callable[[], object]) -> int:
    """How much the process's resident memory rises at most while ``turn`` runs."""
    before = _resident()
    with _most_resident() as most:
        turn()
    return most[0] - before


@contextmanager
def _most_resident() -> Iterator[list[int]]:
    most, over = [_resident()], threading.Event()

    def sample() -> None:
        while not over.wait(_SAMPLE_SECONDS):
            most[0] = max(most[0], _resident())

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield most
    finally:
        over.set()
        thread.join()


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize()
