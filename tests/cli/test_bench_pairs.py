"""Turns of the modes of `tracer bench capture`, and how their writing is shared; no engine."""

from collections import Counter
from types import SimpleNamespace

import pytest

pytest.importorskip("torch", reason="needs vLLM: make setup")

from tracer.bench import overhead
from tracer.bench.loads import Load, Spent
from tracer.bench.modes import Mode
from tracer.bench.overhead import BOTH, Written


class Recorder(Mode):
    """Writes what it gathered every 2.5 seconds; a write takes half a second."""

    name = "full"

    def __init__(self, clock):
        self.clock, self.gathered, self._on, self._off = clock, 0, [], []
        self._switch = self

    def turn(self, values):
        pass

    def count(self, finished):
        pass

    def settle(self, finished):
        self.gathered += finished
        self.clock.spend(1.0)

    def is_due(self, seconds):
        return seconds >= 2.5

    def write(self):
        written, self.gathered = self.gathered, 0
        self.clock.spend(0.5 if written else 0.125)
        return written


class Clock:
    """Makes stopwatches whose hands the test moves; the clock goes twice as fast as compute."""

    def __init__(self):
        self.now = 0.0

    def spend(self, seconds):
        self.now += seconds

    def watch(self):
        began = self.now
        return SimpleNamespace(read=lambda: Spent(self.now - began, 2 * (self.now - began)))


@pytest.fixture
def side(monkeypatch):
    """A mode whose every turn takes 1 s of CPU time and 2 s on the clock, at 7 choices a turn."""
    clock = Clock()
    monkeypatch.setattr(overhead, "Stopwatch", clock.watch)
    monkeypatch.setattr(overhead, "run_load", lambda *_: 7)
    monkeypatch.setattr(overhead, "hooked_routers", lambda _: 3)
    return overhead._Side(SimpleNamespace(engine=None, worker=None), Recorder(clock))


def test_a_mode_writes_by_the_clock_of_its_own_turns(side):
    """2 s a turn: due after the second and the fourth; the fifth is written at the end."""
    load = Load("prefill", 3, 1, 1)
    for pair in range(5):
        side.run(load, pair)
        side.mode.clock.spend(100.0)  # of other modes
    side.write()
    side.write()  # nothing is left
    assert side.batches == [
        Written(14, Spent(0.5, 1.0)), Written(14, Spent(0.5, 1.0)), Written(7, Spent(0.5, 1.0))
    ]  # fmt: skip


def test_writing_is_shared_by_all_pairs_and_by_tokens(side):
    """Two pairs of two turns; 1 s of writing, of which prefill has 3 of 4 tokens: 0.375 a pair."""
    loads = [Load("prefill", 3, 1, 1), Load("decode", 1, 1, 1)]
    for pair in range(2):
        for load in loads:
            side.run(load, pair)
    side.write()
    shared = side.shared_out({"prefill": 3, "decode": 1, BOTH: 4})
    assert shared == {
        "prefill": [Spent(1.375, 2.75)] * 2,
        "decode": [Spent(1.125, 2.25)] * 2,
        BOTH: [Spent(2.5, 5.0)] * 2,
    }
    assert side.hooked == 3


@pytest.mark.parametrize(("records", "returned"), [(True, 6), (False, 0)])
def test_a_mode_that_recorded_something_else_is_refused(records, returned):
    mode = Recorder(Clock())
    mode.records, mode._returned = records, returned
    mode._bench = SimpleNamespace(engine=SimpleNamespace(model={"layer_ids": [1, 3]}))
    mode.check(3)
    mode._returned += 1
    with pytest.raises(RuntimeError, match=f"full recorded {returned + 1} rows instead of"):
        mode.check(3)


def test_every_mode_has_one_turn_in_each_load_of_a_pair_and_orders_differ(monkeypatch):
    turns = []
    monkeypatch.setattr(
        overhead._Side, "run", lambda self, load, pair: turns.append((pair, load, self.mode))
    )
    monkeypatch.setattr(overhead._Side, "write", lambda self: turns.append(self.mode))
    order = overhead.random.Random(0)
    overhead._measure(None, "abc", ["p", "d"], range(1, 11), order, note=lambda _: None)
    written = turns[60:]
    assert sorted(written) == ["a", "b", "c"]
    blocks = [turns[at : at + 3] for at in range(0, 60, 3)]
    for number, block in enumerate(blocks):
        pair, load = number // 2 + 1, "pd"[number % 2]
        assert sorted(block) == [(pair, load, mode) for mode in "abc"]
    assert len(Counter(tuple(mode for *_, mode in block) for block in blocks)) > 3
