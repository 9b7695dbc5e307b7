"""Gathers the rows of each request and, once it is finished, writes them: two threads a worker.

The engine hands over steps and moves on. The first thread empties the memory that steps arrive in
and picks the rows of finished requests; the second writes shards, so that a slow disk holds up
nobody until a whole shard waits behind the one being written. Then that memory stays full and the
engine waits: memory does not grow.
"""

import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import numpy as np

from tracer.capture.finished import FinishedRequest, assemble
from tracer.capture.inbox import Inbox
from tracer.capture.request_numbers import RequestNumbers
from tracer.capture.row_format import RowFormat
from tracer.capture.row_log import NOBODY, RowLog, TakenRows
from tracer.capture.steps import Step
from tracer.store.shard import ShardFile, ShardWriter

__all__ = ["Collector"]


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
    wake_rows: steps wait until there are so many rows of them; at most a quarter of what the
        drain holds, else the engine would wait for a thread that waits for it
    once: files to commit with the first batch
    """

    writer: ShardWriter
    row_format: RowFormat
    layer_ids: Sequence[int]
    worker: str
    tokens: bool = True
    wake_rows: int = 1
    once: list[ShardFile] = field(default_factory=list)
    _numbers: RequestNumbers = field(default_factory=RequestNumbers)
    _log: RowLog = field(init=False)
    # The drain's memory bounds the steps in here; seals and discards are few and small.
    _arrived: Inbox = field(init=False)
    _to_write: "queue.Queue[Any]" = field(default_factory=lambda: queue.Queue(1))
    _written: "queue.Queue[tuple[int, list[ShardFile]]]" = field(default_factory=queue.Queue)
    # Tokens that an open request may lack, since the prefix cache had them; few have any.
    _skipped: dict[str, int] = field(default_factory=dict)
    _cached: "queue.Queue[tuple[str, int]]" = field(default_factory=queue.Queue)
    _error: BaseException | None = None
    _threads: list[threading.Thread] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._log = RowLog(self.row_format)
        self._arrived = Inbox(self.wake_rows)

    def start(self) -> None:
        """Start the threads."""
        for name, work in (("tracer-rows", self._read), ("tracer-shards", self._write)):
            thread = threading.Thread(target=work, name=name, daemon=True)
            thread.start()
            self._threads.append(thread)

    @property
    def host_bytes(self) -> int:
        """Bytes held for requests that are not sealed."""
        return self._log.host_bytes

    def receive(self, step: Step) -> None:
        """Queue one step. Never waits and never raises: memory is what an engine waits for.

        It is called inside the engine's forward pass, and an error there would reach the driver
        as a dead engine; ``seal`` and ``take_written`` report it.
        """
        self._arrived.put(step, sum(step.row_counts))

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
        reader, writer = self._threads
        self._arrived.put(None)
        reader.join()
        self._to_write.put(None)
        writer.join()
        self._threads.clear()

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _attempt(self, work: Callable[[Any], None], what: Any) -> None:
        """After an error items are only drained, so that nobody waits for a slot."""
        try:
            if self._error is None:
                work(what)
        except BaseException as error:  # noqa: BLE001 - kept and re-raised by _raise
            self._error = error

    def _read(self) -> None:
        """The first thread."""
        running = True
        while running:
            for are_steps, group in groupby(
                self._arrived.take(), lambda item: isinstance(item, Step)
            ):
                items = list(group)
                if are_steps:
                    self._attempt(self._append, items)
                    for step in items:
                        step.slot.release()
                else:
                    for item in items:
                        self._attempt(self._handle, item)
                    running = items[-1] is not None
                self._arrived.done(len(items))

    def _handle(self, item: _Seal | _Discard | None) -> None:
        if isinstance(item, _Discard):
            self._log.take(self._numbers.close(item.engine_ids), [0] * len(item.engine_ids))
            for engine_id in item.engine_ids:
                self._skipped.pop(engine_id, None)
        elif item is not None:
            self._to_write.put(self._take(item))

    def _append(self, steps: Sequence[Step]) -> None:
        """Take in consecutive steps at once: what enters comes first, what left comes last."""
        for step in steps:
            self._numbers.mute(step.muted)
            for engine_id, count in step.skipped:
                if self._numbers.of([engine_id])[0] != NOBODY:
                    self._skipped[engine_id] = max(self._skipped.get(engine_id, 0), count)
        numbers = self._numbers.of([name for step in steps for name in step.request_ids])
        owners = np.repeat(numbers, [count for step in steps for count in step.row_counts])
        unwanted = bool(numbers.size) and numbers.min() == NOBODY
        begin = 0
        for step in steps:
            rows = step.slot.rows()
            mine = owners[begin : begin + len(rows)]
            begin += len(rows)
            if unwanted:
                wanted = mine != NOBODY
                rows, mine = rows[wanted], mine[wanted]
            self._log.append(rows, mine)
        for step in steps:
            self._numbers.end(step.ended)

    def _take(self, seal: _Seal) -> _Taken:
        finished = seal.finished
        rows = self._log.take(
            self._numbers.close([request.engine_id for request in finished]),
            [request.num_forwarded for request in finished],
        )
        skipped = [self._skipped.pop(request.engine_id, 0) for request in finished]
        return _Taken(seal.batch, finished, rows, skipped)

    def _write(self) -> None:
        """The second thread."""
        while (taken := self._to_write.get()) is not None:
            self._attempt(self._write_shard, taken)
            self._to_write.task_done()
        self._to_write.task_done()

    def _write_shard(self, taken: _Taken) -> None:
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
