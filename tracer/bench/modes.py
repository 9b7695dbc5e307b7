"""What may be recorded while a load runs. Every mode leaves the engine as it found it.

In a round every mode is opened, attached for each of its turns at the engine, told to settle at
the turn's end, given all finished requests at last, and closed. Turns, ``settle`` and ``finish``
are timed; opening, attaching and closing, which a capture does once, are not.

Modes take turns by exchanging the attributes that recording sets on vLLM's objects, so each
keeps its own recording open while the others run.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from tracer.bench.engine import BenchEngine
from tracer.bench.loads import Finished
from tracer.capture.attach import moe_runners
from tracer.capture.batches import Batch, Batches
from tracer.store.run_writer import RunWriter

__all__ = ["FullMode", "HookMode", "Mode", "NativeMode", "hooked_routers"]

_ABSENT = object()


def _routers(worker: Any) -> list[Any]:
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

    def __init__(self, bench: BenchEngine) -> None:
        self._bench = bench
        self._switch = _Switch(bench)
        self._off = self._on = self._switch.read()

    def open(self) -> None:
        """Prepare for a round."""

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Whatever must hang on the engine, until the block ends."""
        self._switch.turn(self._on)
        try:
            yield
        finally:
            self._switch.turn(self._off)

    def settle(self) -> None:
        """Wait for work in the background, so that it is not counted to another mode."""

    def finish(self, finished: Sequence[Finished]) -> None:
        """What recording still has to do once the requests are finished."""

    def close(self) -> None:
        """End what ``open`` began."""

    def rows(self, finished: Sequence[Finished]) -> int:
        """Rows recorded in the round, one per token and layer; asked after ``finish``.

        vLLM's own are those it returned, so that any other mode shows that it was off.
        """
        ids = [request.native_ids for request in finished if request.native_ids is not None]
        return sum(len(one) * len(one[0]) for one in ids)


class HookMode(Mode):
    """Routers write to the buffer, nobody reads it: what every engine step pays at least."""

    name = "hook"

    def __init__(self, bench: BenchEngine) -> None:
        super().__init__(bench)
        bench.worker.tracer_capture.attach()
        self._on = self._switch.read()
        bench.worker.tracer_capture.detach()


class FullMode(Mode):
    """All that a capture does: hooks, copies, joining, Parquet, commit.

    Every round is sealed and committed as one batch. A capture does so once in about 8 million
    choices or a minute, so what a batch costs once is here paid more often than there.
    """

    name = "full"

    def __init__(self, bench: BenchEngine, target: RunWriter) -> None:
        super().__init__(bench)
        self._target = target
        self._batches = Batches(bench.engine, target)
        self._batch = Batch(target.next_batch)
        self._counted = 0

    def open(self) -> None:
        """The worker's hooks, step watching and threads."""
        self._bench.worker.tracer_capture.attach()
        lake, attempt = str(self._target.lake.path), f"bench{self._batch.number}"
        self._bench.engine.call("tracer_begin", lake, self._target.run_id, attempt)
        self._on = self._switch.read()
        self._switch.turn(self._off)

    def settle(self) -> None:
        """Let the threads take in the steps of this turn."""
        self._bench.engine.call("tracer_collect", True)

    def finish(self, finished: Sequence[Finished]) -> None:
        """Seal, wait for the files, commit."""
        for number, request in enumerate(finished):
            name = f"{self._batch.number}-{number}"
            prompt, tokens = request.num_prompt_tokens, list(request.token_ids)
            self._batch.finished.append([request.engine_id, name, "bench", prompt, tokens, 0])
            self._batch.requests.append(_request_row(name, prompt, len(tokens) - prompt))
        self._batch = self._batches.seal(self._batch)
        self._batches.commit(wait=True)

    def close(self) -> None:
        """The threads end."""
        self._switch.turn(self._on)
        self._bench.engine.call("tracer_end")

    def rows(self, finished: Sequence[Finished]) -> int:
        """Rows of `routing` in the lake that were not there before."""
        _refuse(super().rows(finished) > 0, "vLLM recorded ids, too")
        before, lake = self._counted, self._target.lake
        self._counted = lake.num_rows("routing", self._target.run_id)
        return self._counted - before


class NativeMode(Mode):
    """VLLM's own recorder: expert ids, no weights, handed to the caller in memory, not stored.

    Set up by ``enable_return_routed_experts``. The routers' ``capture_fn``, the runner's copy of
    each step and the scheduler's store are all it does per step (read in 0.30); each has one
    switch, and with the three off the engine runs as without the flag.
    """

    name = "native"

    def __init__(self, bench: BenchEngine) -> None:
        """Leaves the recorder switched off; modes made from then on know it so."""
        super().__init__(bench)
        for router in _routers(bench.worker):
            router.set_capture_fn(None)
        bench.worker.model_runner.routed_experts_initialized = False
        bench.scheduler.enable_return_routed_experts = False
        self._off = self._switch.read()


def _refuse(wrong: bool, fact: str) -> None:
    """A mode that did something else than its name would make the figures false."""
    if wrong:
        raise RuntimeError(fact)


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
