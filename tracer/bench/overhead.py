"""Capture against no capture: the same engine and loads, in pairs, in random order.

Compute time of the whole process is compared, the writer thread's included; it holds on a
machine that others use. Time on the clock is told beside it and does not.
"""

import gc
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from tracer.bench.engine import BenchEngine, started
from tracer.bench.floor import Floor, measure_floor
from tracer.bench.loads import LOADS, Load, Spent, Stopwatch, run_load
from tracer.bench.models import write_model
from tracer.bench.modes import FullMode, HookMode, Mode, NativeMode, hooked_routers
from tracer.bench.ratios import Ratio, paired_ratio
from tracer.capture.engine_setup import EngineIdentity
from tracer.store.lake import Lake
from tracer.store.run_writer import RunWriter

__all__ = ["BOTH", "Overhead", "Written", "measure_overhead"]

BOTH = "both"
_RUN = "bench"


@dataclass(frozen=True, slots=True)
class Written:
    """A batch that was sealed, written and committed: its choices, and what that took."""

    choices: int
    spent: Spent


@dataclass(slots=True)
class Overhead:
    """Measurements of one model.

    spent: mode -> load (or BOTH, their sum) -> one entry a pair, a share of the writing included
    rows, hooked: mode -> rows recorded in all pairs, routers that were hooked
    tokens: load (or BOTH) -> forwarded tokens a pair
    batches: what full wrote in all pairs
    """

    spent: dict[str, dict[str, list[Spent]]] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)
    hooked: dict[str, int] = field(default_factory=dict)
    tokens: dict[str, int] = field(default_factory=dict)
    batches: list[Written] = field(default_factory=list)

    def cpu_ratio(self, mode: str, load: str = BOTH, *, against: str = "off") -> Ratio:
        """Compute time of a mode against another's."""
        above, below = self.spent[mode][load], self.spent[against][load]
        return paired_ratio([s.cpu for s in above], [s.cpu for s in below])

    def wall_ratio(self, mode: str, load: str = BOTH) -> Ratio:
        """Time on the clock of a mode against off."""
        above, below = self.spent[mode][load], self.spent["off"][load]
        return paired_ratio([s.wall for s in above], [s.wall for s in below])

    def off_cpu_s(self, load: str = BOTH) -> float:
        """Compute seconds of a token that is not recorded, median of the pairs."""
        return median([s.cpu for s in self.spent["off"][load]]) / self.tokens[load]

    def tokens_per_s(self, mode: str, load: str) -> float:
        """Forwarded tokens per second on the clock, median of the pairs."""
        return self.tokens[load] / median([s.wall for s in self.spent[mode][load]])

    def batch_choices(self) -> float:
        """Choices in a batch, on average."""
        return sum(batch.choices for batch in self.batches) / len(self.batches)

    def batch_cpu_s(self) -> float:
        """Compute seconds of sealing, writing and committing a batch, on average."""
        return sum(batch.spent.cpu for batch in self.batches) / len(self.batches)


def measure_overhead(
    size: str,
    pairs: int,
    identity: EngineIdentity,
    *,
    dtype: str,
    folder: Path,
    note: Callable[[str], None],
) -> tuple[Overhead, Floor]:
    """Start an engine on the model of ``size`` and run every mode ``pairs`` times.

    Args:
        size: mid or tiny.
        pairs: how often each mode has a turn at each load; one more warms up.
        identity: from ``prepare``.
        dtype: what the model computes in.
        folder: empty; the model and a lake are written to it.
        note: told what is going on.

    Raises:
        TracerError: the engine or the capture fails.
        RuntimeError: a mode recorded something else than it should.
    """
    note(f"writing the {size} model")
    write_model(size, folder / "model")
    note("starting the engine")
    with started(folder / "model", identity, dtype) as bench:
        bench.worker.tracer_capture.detach()
        lake = Lake.create(folder / "lake")
        # First: it switches vLLM's own recorder off, as the others shall find it.
        native = [NativeMode(bench)] if bench.has_native else []
        full = FullMode(bench, RunWriter(lake, _RUN, frozenset(), 0))
        modes: list[Mode] = [Mode(bench), HookMode(bench), full, *native]
        measured = _run_pairs(bench, modes, LOADS[size], pairs, note)
        note("measuring the floor")
        files = (folder / "lake" / "routing" / _RUN).glob("*.parquet")
        largest = max(files, key=lambda file: file.stat().st_size)
        num_experts = int(bench.engine.model["num_experts"])
    return measured, measure_floor(largest, num_experts)


def _run_pairs(
    bench: BenchEngine,
    modes: Sequence[Mode],
    loads: Sequence[Load],
    pairs: int,
    note: Callable[[str], None],
) -> Overhead:
    tokens = {load.name: load.num_tokens for load in loads}
    tokens[BOTH] = sum(tokens.values())
    order = random.Random(0)
    gc.collect()
    gc.freeze()  # what the engine holds is not to be searched again before every turn
    for mode in modes:
        mode.open()
    note("warming up")
    _measure(bench, modes, loads, range(1), order, note=lambda _: None)
    warm = {mode.name: mode.rows() for mode in modes}
    sides = _measure(bench, modes, loads, range(1, pairs + 1), order, note=note)
    for mode in modes:
        mode.check((pairs + 1) * tokens[BOTH])
        mode.close()
    gc.unfreeze()
    return Overhead(
        {side.mode.name: side.shared_out(tokens) for side in sides},
        {side.mode.name: side.mode.rows() - warm[side.mode.name] for side in sides},
        {side.mode.name: side.hooked for side in sides},
        tokens,
        [batch for side in sides for batch in side.batches],
    )


def _measure(
    bench: BenchEngine,
    modes: Sequence[Mode],
    loads: Sequence[Load],
    pairs: range,
    order: random.Random,
    *,
    note: Callable[[str], None],
) -> list["_Side"]:
    """Run the pairs of these numbers; batches begin and end with them."""
    sides = [_Side(bench, mode) for mode in modes]
    for pair in pairs:
        note(f"pair {pair} of {pairs[-1]}")
        for load in loads:
            for side in order.sample(sides, len(sides)):
                side.run(load, pair)
    for side in sides:
        side.write()
    return sides


class _Side:
    """A mode's turns at the engine.

    spent: load -> time of each turn; batches: what was written
    hooked: routers that were, at the last turn
    """

    def __init__(self, bench: BenchEngine, mode: Mode) -> None:
        self._bench = bench
        self.mode = mode
        self.spent: dict[str, list[Spent]] = {}
        self.batches: list[Written] = []
        self.hooked = 0
        self._seconds = 0.0

    def run(self, load: Load, pair: int) -> None:
        """One turn: all requests of the load."""
        with self.mode.attached():
            self.hooked = hooked_routers(self._bench.worker)
            watch = Stopwatch()
            finished = run_load(self._bench.engine, load, pair, f"{pair}-{self.mode.name}")
            self.mode.settle(finished)
            spent = watch.read()
        self.mode.count(finished)
        self.spent.setdefault(load.name, []).append(spent)
        self._seconds += spent.wall
        if self.mode.is_due(self._seconds):
            self.write()

    def write(self) -> None:
        """Write what the mode has gathered."""
        watch = Stopwatch()
        if choices := self.mode.write():
            self.batches.append(Written(choices, watch.read()))
        self._seconds = 0.0

    def shared_out(self, tokens: Mapping[str, int]) -> dict[str, list[Spent]]:
        """``Overhead.spent`` of this mode: all writing is shared evenly by the pairs.

        Not by the pairs of each batch: a last, small batch would fall upon few of them, and a
        median does not see few.
        """
        pairs = len(next(iter(self.spent.values())))
        written = sum((batch.spent for batch in self.batches), Spent(0.0, 0.0))
        shared = {
            load: [one + written.share(tokens[load] / tokens[BOTH] / pairs) for one in spent]
            for load, spent in self.spent.items()
        }
        shared[BOTH] = [sum(turns, Spent(0.0, 0.0)) for turns in zip(*shared.values(), strict=True)]
        return shared
