"""Gathers the rows of each request and, once it is finished, writes them: two threads a worker.

The engine hands over steps and moves on. The first thread empties the slots that steps arrive in
and picks the rows of finished requests; the second writes shards, so that a slow disk holds up
nobody until a whole shard waits behind the one being written. Then the slots stay full and the
engine waits: memory does not grow.
"""

import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tracer.capture.finished import FinishedRequest, assemble
from tracer.capture.request_numbers import RequestNumbers
from tracer.capture.row_format import RowFormat
from tracer.capture.row_log import NOBODY, RowLog, TakenRows
from tracer.capture.steps import Step
from tracer.store.shard import ShardFile, ShardWriter

__all__ = ["Collector", "describe_error"]


@dataclass(frozen=True, slots=True)
class _Seal:
    batch: int
    finished: Sequence[FinishedRequest]


@dataclass(frozen=True, slots=True)
class _Taken:
    """A sealed batch on its way from one thread to the other; see ``assemble``."""

    batch: int
    finished: Sequence[FinishedRequest]
    rows: TakenRows
    skipped: Sequence[int]


@dataclass(frozen=True, slots=True)
class _Discard:
    engine_ids: Sequence[str]


@dataclass(slots=True)
class Collector:
    """Rows by request until sealed, then shards.

    layer_ids: the worker's MoE layers, ascending; worker: its part of the shard names
    tokens: whether this worker writes the `tokens` table (the first pipeline stage does)
    once: files to commit with the first batch
    """

    writer: ShardWriter
    row_format: RowFormat
    layer_ids: Sequence[int]
    worker: str
    tokens: bool = True
    once: list[ShardFile] = field(default_factory=list)
    _numbers: RequestNumbers = field(default_factory=RequestNumbers)
    _log: RowLog = field(init=False)
    # Slots bound the steps in here; seals and discards are few and small.
    _arrived: "queue.Queue[Any]" = field(default_factory=queue.Queue)
    _to_write: "queue.Queue[Any]" = field(default_factory=lambda: queue.Queue(1))
    _written: "queue.Queue[tuple[int, list[ShardFile]]]" = field(default_factory=queue.Queue)
    # Tokens that an open request may lack, since the prefix cache had them; few have any.
    _skipped: dict[str, int] = field(default_factory=dict)
    _cached: "queue.Queue[tuple[str, int]]" = field(default_factory=queue.Queue)
    _error: BaseException | None = None
    _threads: list[threading.Thread] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._log = RowLog(self.row_format)

    def start(self) -> None:
        """Start the threads."""
        for name, source, handle in (
            ("tracer-rows", self._arrived, self._handle),
            ("tracer-shards", self._to_write, self._write),
        ):
            thread = threading.Thread(
                target=self._run, args=(source, handle), name=name, daemon=True
            )
            thread.start()
            self._threads.append(thread)

    @property
    def host_bytes(self) -> int:
        """Bytes held for requests that are not sealed."""
        return self._log.host_bytes

    def receive(self, step: Step) -> None:
        """Queue one step. Never waits and never raises: slots are what an engine waits for.

        It is called inside the engine's forward pass, and an error there would reach the driver
        as a dead engine; ``seal`` and ``take_written`` report it.
        """
        self._arrived.put(step)

    def seal(self, batch: int, finished: Sequence[FinishedRequest]) -> None:
        """Write the finished requests as the shard of ``batch``."""
        self._raise()
        self._arrived.put(_Seal(batch, finished))

    def discard(self, engine_ids: Sequence[str]) -> None:
        """Forget the rows of requests that will not be finished."""
        self._raise()
        self._arrived.put(_Discard(engine_ids))

    def take_written(self, *, wait: bool) -> dict[int, list[ShardFile]]:
        """Shards written since the last call, by batch.

        Args:
            wait: first let the threads write everything that was sealed.

        Raises:
            BaseException: what stopped a thread.
        """
        if wait:
            self._arrived.join()
            self._to_write.join()
        self._raise()
        written: dict[int, list[ShardFile]] = {}
        while not self._written.empty():
            batch, files = self._written.get()
            written[batch] = files
        return written

    def take_cached(self) -> dict[str, int]:
        """Prompt tokens without a row, by request, where the engine said another number.

        Ask after ``take_written``: the answer covers all batches that named.
        """
        cached: dict[str, int] = {}
        while not self._cached.empty():
            request_id, missing = self._cached.get()
            cached[request_id] = missing
        return cached

    def stop(self) -> None:
        """End the threads; rows that were not sealed are forgotten."""
        for thread, source in zip(self._threads, (self._arrived, self._to_write), strict=True):
            source.put(None)
            thread.join()
        self._threads.clear()

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _run(self, source: "queue.Queue[Any]", handle: Callable[[Any], None]) -> None:
        while (item := source.get()) is not None:
            try:
                # After an error items are only drained, so that nobody waits for a slot.
                if self._error is None:
                    handle(item)
            except BaseException as error:  # noqa: BLE001 - kept and re-raised by _raise
                self._error = error
            finally:
                if isinstance(item, Step):
                    item.slot.release()
                source.task_done()
        source.task_done()

    def _handle(self, item: Step | _Seal | _Discard) -> None:
        if isinstance(item, Step):
            self._append(item)
        elif isinstance(item, _Discard):
            self._log.take(self._numbers.close(item.engine_ids), [0] * len(item.engine_ids))
            for engine_id in item.engine_ids:
                self._skipped.pop(engine_id, None)
        else:
            self._to_write.put(self._take(item))

    def _append(self, step: Step) -> None:
        self._numbers.mute(step.muted)
        for engine_id, count in step.skipped:
            if self._numbers.of([engine_id])[0] != NOBODY:
                self._skipped[engine_id] = max(self._skipped.get(engine_id, 0), count)
        owners = np.repeat(self._numbers.of(step.request_ids), step.row_counts)
        rows = step.slot.rows()
        if owners.size and owners.min() == NOBODY:
            wanted = owners != NOBODY
            rows, owners = rows[wanted], owners[wanted]
        self._log.append(rows, owners)
        if step.ended:
            self._numbers.end(step.ended)

    def _take(self, seal: _Seal) -> _Taken:
        finished = seal.finished
        rows = self._log.take(
            self._numbers.close([request.engine_id for request in finished]),
            [request.num_forwarded for request in finished],
        )
        skipped = [self._skipped.pop(request.engine_id, 0) for request in finished]
        return _Taken(seal.batch, finished, rows, skipped)

    def _write(self, taken: _Taken) -> None:
        files = self._write_rows(taken) if taken.finished else []
        self._written.put((taken.batch, [*self.once, *files]))
        self.once.clear()

    def _write_rows(self, taken: _Taken) -> list[ShardFile]:
        finished = taken.finished
        rows = assemble(finished, taken.rows, taken.skipped, self.row_format, self.layer_ids)
        for request, traced in zip(finished, rows.requests, strict=True):
            missing = request.num_forwarded - traced.num_rows
            if missing != request.cached_prefix_tokens:
                self._cached.put((request.request_id, missing))
        return self.writer.write(f"{taken.batch:06d}-{self.worker}", rows, tokens=self.tokens)


def describe_error(error: BaseException) -> dict[str, Any]:
    """An error as plain values, to cross process boundaries."""
    return {
        "type": type(error).__name__,
        "message": str(error),
        "hint": getattr(error, "hint", None),
        "exit_code": getattr(error, "exit_code", None),
    }
