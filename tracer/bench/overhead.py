"""Capture against no capture: the same engine and loads, rounds in random order, paired.

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
from tracer.bench.loads import LOADS, Finished, Load, Spent, Stopwatch, run_load
from tracer.bench.models import write_model
from tracer.bench.modes import FullMode, HookMode, Mode, NativeMode, hooked_routers
from tracer.bench.ratios import Ratio, paired_ratio
from tracer.capture.engine_setup import EngineIdentity
from tracer.store.lake import Lake
from tracer.store.run_writer import SHARD_CHOICES, RunWriter

__all__ = ["BOTH", "Overhead", "measure_overhead"]

BOTH = "both"
_RUN = "bench"
_SMALL = Load("small", 1, 8, 1, 1)
_SMALL_BATCHES = 5
# A capture seals a batch at least this often; see tracer.capture.recording.
_SEAL_SECONDS = 60.0


@dataclass(slots=True)
class Overhead:
    """Measurements of one model.

    spent: mode -> load (or BOTH, their sum) -> one entry a round
    rows, hooked: mode -> rows recorded in a round, routers that were hooked
    tokens: load (or BOTH) -> forwarded tokens a round
    batch_cpu_s: compute seconds of sealing, writing and committing a batch of next to nothing
    batch_share: part of a batch that a round is, at the rate a capture seals batches
    """

    spent: dict[str, dict[str, list[Spent]]] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)
    hooked: dict[str, int] = field(default_factory=dict)
    tokens: dict[str, int] = field(default_factory=dict)
    batch_cpu_s: float = 0.0
    batch_share: float = 1.0

    def cpu_ratio(self, mode: str, load: str = BOTH, *, against: str = "off") -> Ratio:
        """Compute time of a mode against another's."""
        above, below = self.spent[mode][load], self.spent[against][load]
        return paired_ratio([s.cpu for s in above], [s.cpu for s in below])

    def long_run_ratio(self) -> Ratio:
        """Compute time of full against off if a round paid its share of a batch's fixed cost.

        Every round is a batch here, while a capture gathers for a minute or 8 million choices.
        """
        unpaid = self.batch_cpu_s * (1 - self.batch_share)
        above, below = self.spent["full"][BOTH], self.spent["off"][BOTH]
        return paired_ratio([s.cpu - unpaid for s in above], [s.cpu for s in below])

    def wall_ratio(self, mode: str, load: str = BOTH) -> Ratio:
        """Time on the clock of a mode against off."""
        above, below = self.spent[mode][load], self.spent["off"][load]
        return paired_ratio([s.wall for s in above], [s.wall for s in below])

    def off_cpu_s(self, load: str = BOTH) -> float:
        """Compute seconds of a token that is not recorded, median of the rounds."""
        return median([s.cpu for s in self.spent["off"][load]]) / self.tokens[load]

    def tokens_per_s(self, mode: str, load: str) -> float:
        """Forwarded tokens per second on the clock, median of the rounds."""
        return self.tokens[load] / median([s.wall for s in self.spent[mode][load]])


def measure_overhead(
    size: str, pairs: int, identity: EngineIdentity, folder: Path, note: Callable[[str], None]
) -> tuple[Overhead, Floor]:
    """Start an engine on the model of ``size`` and run every mode ``pairs`` times.

    Args:
        size: mid or tiny.
        pairs: rounds; each runs every mode once, in random order.
        identity: from ``prepare``.
        folder: empty; the model and a lake are written to it.
        note: told what is going on.

    Raises:
        TracerError: the engine or the capture fails.
    """
    note(f"writing the {size} model")
    write_model(size, folder / "model")
    note("starting the engine")
    with started(folder / "model", identity) as bench:
        bench.worker.tracer_capture.detach()
        lake = Lake.create(folder / "lake")
        # First: it switches vLLM's own recorder off, as the others shall find it.
        native = [NativeMode(bench)] if bench.has_native else []
        full = FullMode(bench, RunWriter(lake, _RUN, frozenset(), 0))
        modes: list[Mode] = [Mode(bench), HookMode(bench), full, *native]
        measured = _run_rounds(bench, modes, LOADS[size], pairs, note)
        note("measuring a small batch and the floor")
        measured.batch_cpu_s = median(_spent_on_batch(bench, full) for _ in range(_SMALL_BATCHES))
        choices = measured.rows[full.name] * int(bench.engine.model["top_k"])
        seconds = median(spent.cpu for spent in measured.spent["off"][BOTH])
        measured.batch_share = min(1.0, max(choices / SHARD_CHOICES, seconds / _SEAL_SECONDS))
        files = sorted((folder / "lake" / "routing" / _RUN).glob("*.parquet"))
        num_experts = int(bench.engine.model["num_experts"])
    return measured, measure_floor(files[0], num_experts)


def _run_rounds(
    bench: BenchEngine,
    modes: Sequence[Mode],
    loads: Sequence[Load],
    pairs: int,
    note: Callable[[str], None],
) -> Overhead:
    measured = Overhead({mode.name: {} for mode in modes})
    measured.tokens = {load.name: load.num_tokens for load in loads}
    measured.tokens[BOTH] = sum(measured.tokens.values())
    order = random.Random(0)
    gc.collect()
    gc.freeze()  # what the engine holds is not to be searched again before every turn
    for number in range(pairs + 1):
        note(f"round {number} of {pairs}" if number else "warming up")
        turns = [Turns(bench, mode, f"{number}-{mode.name}") for mode in modes]
        for turn in turns:
            turn.mode.open()
        for load in loads:
            for repeat in range(load.repeats):
                for turn in order.sample(turns, len(turns)):
                    turn.run(load, repeat)
        for turn in order.sample(turns, len(turns)):
            turn.finish(measured.tokens)
            turn.mode.close()
            name = turn.mode.name
            measured.rows[name], measured.hooked[name] = turn.rows, turn.hooked
            for load_name, spent in turn.spent.items() if number else ():
                measured.spent[name].setdefault(load_name, []).append(spent)
    gc.unfreeze()
    return measured


class Turns:
    """A mode's turns at the engine in one round.

    spent: load, or BOTH -> time; rows: recorded; hooked: routers that were, at the last turn
    """

    def __init__(self, bench: BenchEngine, mode: Mode, prefix: str) -> None:
        self._bench = bench
        self.mode = mode
        self._prefix = prefix
        self._finished: list[Finished] = []
        self.spent: dict[str, Spent] = {}
        self.rows = self.hooked = 0

    def run(self, load: Load, repeat: int) -> None:
        """One turn: all requests of the load, once."""
        with self.mode.attached():
            self.hooked = hooked_routers(self._bench.worker)
            watch = Stopwatch()
            prefix = f"{self._prefix}-{len(self._finished)}"
            self._finished += run_load(self._bench.engine, load, repeat, prefix)
            self.mode.settle()
            self._add(load.name, watch.read())

    def finish(self, tokens: Mapping[str, int]) -> Spent:
        """Write what was recorded; the time is shared out to the loads by their tokens."""
        watch = Stopwatch()
        self.mode.finish(self._finished)
        end = watch.read()
        self.rows = self.mode.rows(self._finished)
        for load in list(self.spent):
            self._add(load, end.share(tokens[load] / tokens[BOTH]))
        for spent in list(self.spent.values()):
            self._add(BOTH, spent)
        return end

    def _add(self, load: str, spent: Spent) -> None:
        self.spent[load] = self.spent.get(load, Spent(0.0, 0.0)) + spent


def _spent_on_batch(bench: BenchEngine, full: FullMode) -> float:
    """Compute seconds of sealing, writing and committing a batch of one request."""
    full.open()
    turns = Turns(bench, full, "small")
    turns.run(_SMALL, 0)
    end = turns.finish({_SMALL.name: _SMALL.num_tokens, BOTH: _SMALL.num_tokens})
    full.close()
    return end.cpu
