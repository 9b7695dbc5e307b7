"""Gathers the rows of each request and, once it is finished, writes them: one thread a worker.

The engine hands over steps and moves on; joining, checking and writing happen here. The queue
is bounded: when writing falls behind, the engine waits rather than the memory growing.
"""

import queue
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from tracer.capture.buffer import MISSING
from tracer.capture.steps import Step
from tracer.errors import CaptureMismatchError
from tracer.store.shard import ShardFile, ShardWriter
from tracer.store.traces import RequestTrace

__all__ = ["Collector", "FinishedRequest", "describe_error"]

_QUEUED_STEPS = 64


@dataclass(frozen=True, slots=True)
class FinishedRequest:
    """What the engine says of a request it finished; the rows must agree with it.

    engine_id: the id the worker knows it by
    token_ids: prompt and generated tokens, the last sampled one included
    cached_prefix_tokens: prompt tokens that were not run, so have no rows
    """

    engine_id: str
    request_id: str
    domain: str
    num_prompt_tokens: int
    token_ids: Sequence[int]
    cached_prefix_tokens: int = 0


@dataclass(frozen=True, slots=True)
class _Rows:
    """One request's share of one step."""

    positions: npt.NDArray[np.int32]
    token_ids: npt.NDArray[np.int32]
    expert_ids: npt.NDArray[np.int16]
    gate_weights: npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class _Seal:
    batch: int
    finished: Sequence[FinishedRequest]


@dataclass(slots=True)
class Collector:
    """Rows by request until sealed, then shards.

    layer_ids: the worker's MoE layers, ascending; worker: its part of the shard names
    """

    writer: ShardWriter
    layer_ids: Sequence[int]
    worker: str
    _open: dict[str, list[_Rows]] = field(default_factory=dict)
    _queue: "queue.Queue[Step | _Seal | None]" = field(
        default_factory=lambda: queue.Queue(_QUEUED_STEPS)
    )
    _written: "queue.Queue[tuple[int, list[ShardFile]]]" = field(default_factory=queue.Queue)
    _error: BaseException | None = None
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the writer thread."""
        self._thread = threading.Thread(target=self._run, name="tracer-writer", daemon=True)
        self._thread.start()

    def receive(self, step: Step) -> None:
        """Queue one step; waits while the queue is full.

        Never raises: it is called inside the engine's forward pass, and an error there would
        reach the driver as a dead engine. ``seal`` and ``take_written`` report it.
        """
        if self._error is None:
            self._queue.put(step)

    def seal(self, batch: int, finished: Sequence[FinishedRequest]) -> None:
        """Write the finished requests as the shard of ``batch``."""
        self._raise()
        self._queue.put(_Seal(batch, finished))

    def take_written(self, *, wait: bool) -> dict[int, list[ShardFile]]:
        """Shards written since the last call, by batch.

        Args:
            wait: first let the thread write everything that was sealed.

        Raises:
            BaseException: what stopped the writer thread.
        """
        if wait:
            self._queue.join()
        self._raise()
        written: dict[int, list[ShardFile]] = {}
        while not self._written.empty():
            batch, files = self._written.get()
            written[batch] = files
        return written

    def stop(self) -> None:
        """End the thread; rows that were not sealed are forgotten."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join()
            self._thread = None

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            try:
                # After an error items are only drained, so that nobody waits on a full queue.
                if self._error is None:
                    self._handle(item)
            except BaseException as error:  # noqa: BLE001 - kept and re-raised by _raise
                self._error = error
            finally:
                self._queue.task_done()
        self._queue.task_done()

    def _handle(self, item: Step | _Seal) -> None:
        if isinstance(item, Step):
            self._append(item)
            return
        traces = [self._finish(request) for request in item.finished]
        name = f"{item.batch:06d}-{self.worker}"
        files = self.writer.write(name, traces) if traces else []
        self._written.put((item.batch, files))

    def _append(self, step: Step) -> None:
        # A slice keeps its whole step in memory, so a request that shares one takes a copy.
        own = len(step.request_ids) == 1
        start = 0
        for request_id, count in zip(step.request_ids, step.row_counts, strict=True):
            part = slice(start, start + count)
            start += count
            self._open.setdefault(request_id, []).append(
                _Rows(
                    step.positions[part],
                    step.token_ids[part],
                    step.expert_ids[:, part] if own else step.expert_ids[:, part].copy(),
                    step.gate_weights[:, part] if own else step.gate_weights[:, part].copy(),
                )
            )

    def _finish(self, request: FinishedRequest) -> RequestTrace:
        """Join the request's rows; the last write to a position wins.

        That settles preemption (rows are computed again) and rejected draft tokens; rows
        beyond what was accepted fall away. Every other position must be there.
        """
        rows = self._open.pop(request.engine_id, [])
        token_ids = np.asarray(request.token_ids, dtype=np.int32)
        # The last sampled token is never run, so it is never routed.
        forwarded = len(token_ids) - 1
        shape = (len(self.layer_ids), forwarded, rows[0].expert_ids.shape[-1] if rows else 0)
        expert_ids = np.full(shape, MISSING, dtype=np.int16)
        gate_weights = np.zeros(shape, dtype=np.float32)
        seen = np.full(forwarded, MISSING, dtype=np.int32)
        for part in rows:
            kept = part.positions < forwarded
            at = part.positions[kept]
            expert_ids[:, at] = part.expert_ids[:, kept]
            gate_weights[:, at] = part.gate_weights[:, kept]
            seen[at] = part.token_ids[kept]
        first = request.cached_prefix_tokens
        self._check(request, token_ids, seen, expert_ids, first)
        return RequestTrace(
            request.request_id,
            request.domain,
            request.num_prompt_tokens,
            self.layer_ids,
            token_ids,
            np.arange(first, forwarded, dtype=np.int32),
            expert_ids[:, first:],
            gate_weights[:, first:],
        )

    def _check(
        self,
        request: FinishedRequest,
        token_ids: npt.NDArray[np.int32],
        seen: npt.NDArray[np.int32],
        expert_ids: npt.NDArray[np.int16],
        first: int,
    ) -> None:
        missing = np.flatnonzero(seen[first:] == MISSING)
        if len(missing):
            raise CaptureMismatchError(
                request.request_id,
                f"{len(missing)} of {len(seen) - first} tokens were not seen, the first at"
                f" position {first + int(missing[0])}",
            )
        wrong = np.flatnonzero(seen[first:] != token_ids[first : len(seen)])
        if len(wrong):
            at = first + int(wrong[0])
            raise CaptureMismatchError(
                request.request_id,
                f"token {int(seen[at])} was seen at position {at}, the engine returned"
                f" {int(token_ids[at])}",
            )
        unrouted = np.argwhere((expert_ids[:, first:] == MISSING).any(axis=-1))
        if len(unrouted):
            layer, at = unrouted[0].tolist()
            raise CaptureMismatchError(
                request.request_id,
                f"layer {self.layer_ids[layer]} did not report its choice at position {first + at}",
            )


def describe_error(error: BaseException) -> dict[str, Any]:
    """An error as plain values, to cross process boundaries."""
    return {
        "type": type(error).__name__,
        "message": str(error),
        "hint": getattr(error, "hint", None),
        "exit_code": getattr(error, "exit_code", None),
    }
