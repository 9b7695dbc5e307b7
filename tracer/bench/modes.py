"""What may be recorded while a load runs. Every mode leaves the engine as it found it.

A mode is opened once, attached for each of its turns at the engine, told at the end of a turn to
settle with the turn's requests, and closed at last. In between it is asked to write what it has
gathered when that is due. Turns, ``settle`` and ``write`` are timed; opening, attaching and
closing, which a capture does once, are not.

Modes take turns by exchanging the attributes that recording sets on vLLM's objects, so each
keeps its own recording open while the others run.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from tracer.bench.engine import BenchEngine
from tracer.bench.loads import Finished
from tracer.capture.batches import Batch, Batches
from tracer.capture.recording import seal_is_due
from tracer.store.run_writer import RunWriter

__all__ = ["FullMode", "HookMode", "Mode", "NativeMode", "hooked_routers"]

_ABSENT = object()


def _routers(worker: Any) -> list[Any]:
    from tracer.capture.attach import moe_runners

    runners = moe_runners(worker.model_runner.get_model())
    return [runner.router for runner in runners.values()]


def hooked_routers(worker: Any) -> int:
    """Routers of the model that record for us at this moment."""
    return sum("_compute_routing" in vars(router) for router in _routers(worker))


class _Switch:
    """Values of the attributes that any kind of recording sets on vLLM's objects."""

    def __init__(self, bench: BenchEngine) -> None:
        runner = bench.worker.model_runner
        self._places = [
            (runner, "execute_model"),
            (runner, "routed_experts_initialized"),
            (bench.scheduler, "enable_return_routed_experts"),
        ]
        for router in _routers(bench.worker):
            self._places += [(router, "_compute_routing"), (router, "capture_fn")]

    def read(self) -> list[Any]:
        """The values as they are now, for ``turn``."""
        return [vars(owner).get(name, _ABSENT) for owner, name in self._places]

    def turn(self, values: Sequence[Any]) -> None:
        """Set what ``read`` returned."""
        for (owner, name), value in zip(self._places, values, strict=True):
            if value is _ABSENT:
                vars(owner).pop(name, None)
            else:
                setattr(owner, name, value)


class Mode:
    """One way to run the loads; this one records nothing."""

    name = "off"
    records = False

    def __init__(self, bench: BenchEngine) -> None:
        self._bench = bench
        self._switch = _Switch(bench)
        self._off = self._on = self._switch.read()
        self._returned = 0

    def open(self) -> None:
        """Begin recording."""

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Whatever must hang on the engine, until the block ends."""
        self._switch.turn(self._on)
        try:
            yield
        finally:
            self._switch.turn(self._off)

    def settle(self, finished: Sequence[Finished]) -> None:
        """Take a turn's requests; wait for work in the background, lest another mode pays it."""

    def count(self, finished: Sequence[Finished]) -> None:
        """Count the rows that vLLM's own recorder returned with a turn's requests."""
        ids = [request.native_ids for request in finished if request.native_ids is not None]
        self._returned += sum(len(one) * len(one[0]) for one in ids)

    def rows(self) -> int:
        """Rows recorded since ``open``, one per token and layer; ask after ``write``.

        VLLM's own are those it returned, so that any other mode shows that it was off.
        """
        return self._returned

    def is_due(self, seconds: float) -> bool:
        """Whether to write now, ``seconds`` of turns after the last time."""
        del seconds
        return False

    def write(self) -> int:
        """Write what was gathered; returns the choices it holds."""
        return 0

    def close(self) -> None:
        """End what ``open`` began."""

    def check(self, num_tokens: int) -> None:
        """See that all of the tokens run since ``open`` were recorded in every layer, or none.

        Raises:
            RuntimeError: the mode did something else than its name says.
        """
        layers = len(self._bench.engine.model["layer_ids"])
        expected = num_tokens * layers if self.records else 0
        if self.rows() != expected:
            raise RuntimeError(f"{self.name} recorded {self.rows()} rows instead of {expected}")


class HookMode(Mode):
    """Routers write to the buffer, nobody reads it: what every engine step pays at least."""

    name = "hook"

    def __init__(self, bench: BenchEngine) -> None:
        super().__init__(bench)
        bench.worker.tracer_capture.attach()
        self._on = self._switch.read()
        bench.worker.tracer_capture.detach()


class FullMode(Mode):
    """All that a capture does: hooks, copies, joining, and a batch when one is due, committed.

    A capture writes a batch while the engine goes on. Here the engine waits, so that it is known
    whose time the writing is; what two busy cores take from each other is not seen.
    """

    name = "full"
    records = True

    def __init__(self, bench: BenchEngine, target: RunWriter) -> None:
        super().__init__(bench)
        self._target = target
        self._batches = Batches(bench.engine, target)
        self._batch = Batch(target.next_batch)
        model = bench.engine.model
        self._choices_per_token = len(model["layer_ids"]) * int(model["top_k"])

    def open(self) -> None:
        """The worker's hooks, step watching and threads."""
        self._bench.worker.tracer_capture.attach()
        lake = self._target.lake.location
        self._bench.engine.call("tracer_begin", lake, self._target.run_id, "bench")
        self._on = self._switch.read()
        self._switch.turn(self._off)

    def settle(self, finished: Sequence[Finished]) -> None:
        """Put the requests into the batch; let the threads take in the steps of this turn."""
        for request in finished:
            name = f"{self._batch.number}-{len(self._batch.requests)}"
            prompt, tokens = request.num_prompt_tokens, list(request.token_ids)
            self._batch.finished.append([request.engine_id, name, "bench", prompt, tokens, 0])
            self._batch.requests.append(_request_row(name, prompt, len(tokens) - prompt))
            self._batch.num_tokens += len(tokens) - 1
        self._bench.engine.call("tracer_collect", True)

    def is_due(self, seconds: float) -> bool:
        """As a capture decides, whose seconds are those that the engine runs for it."""
        return seal_is_due(self._gathered(), seconds)

    def write(self) -> int:
        """Seal the batch, wait for its files, commit them."""
        if choices := self._gathered():
            self._batch = self._batches.seal(self._batch)
            self._batches.commit(wait=True)
        return choices

    def _gathered(self) -> int:
        return self._batch.num_tokens * self._choices_per_token

    def close(self) -> None:
        """The threads end."""
        self._switch.turn(self._on)
        self._bench.engine.call("tracer_end")

    def rows(self) -> int:
        """Rows of `routing` in the lake.

        Raises:
            RuntimeError: vLLM recorded, too.
        """
        if self._returned:
            raise RuntimeError("vLLM's own recorder ran together with the capture")
        return self._target.lake.num_rows("routing", self._target.run_id)


class NativeMode(Mode):
    """VLLM's own recorder: expert ids, no weights, handed to the caller in memory, not stored.

    Set up by ``enable_return_routed_experts``. The routers' ``capture_fn``, the runner's copy of
    each step and the scheduler's store are all it does per step (read in 0.30); each has one
    switch, and with the three off the engine runs as without the flag.
    """

    name = "native"
    records = True

    def __init__(self, bench: BenchEngine) -> None:
        """Leaves the recorder switched off; modes made from then on know it so."""
        super().__init__(bench)
        for router in _routers(bench.worker):
            router.set_capture_fn(None)
        bench.worker.model_runner.routed_experts_initialized = False
        bench.scheduler.enable_return_routed_experts = False
        self._off = self._switch.read()


def _request_row(name: str, prompt: int, generated: int) -> dict[str, Any]:
    return {
        "request_id": name,
        "sample_index": 0,
        "row_id": name,
        "domain": "bench",
        "labels": {},
        "num_prompt_tokens": prompt,
        "prompt_digest": "",
        "prompt_text": None,
        "status": "complete",
        "num_generated_tokens": generated,
        "cached_prefix_tokens": 0,
        "finish_reason": "length",
        "output_text": None,
    }
