"""Keeps the rows of open requests and seals those of finished ones: one thread.

The engine's thread hands over steps and moves on; this thread copies the wanted rows into the log,
and when a batch is due takes the finished requests out of it and passes them to the writer. Memory
is counted: beyond three quarters of it no request begins, beyond all of it those that run are lost.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from tracer.capture.finished import FinishedRequest
from tracer.capture.inbox import Inbox
from tracer.capture.request_rows import CUT_SHORT
from tracer.capture.row_format import RowFormat
from tracer.capture.row_log import NOBODY, RowLog, TakenRows
from tracer.live.batch import REQUEST_BYTES, LiveBatch, LiveRequest
from tracer.live.messages import Ended, Forwarded, Lost, Opened, Tick
from tracer.live.request_row import live_row
from tracer.live.threads import free_thread
from tracer.store.run_writer import SHARD_CHOICES

__all__ = ["BatchSink", "Recorder"]

# Share of the memory beyond which no request begins, so that those that run can end.
_ROOM = 0.75
# Rows that nobody wants are removed at once if they are this part of all; else with the next batch.
_WORTH = 8


class BatchSink(Protocol):
    """Where sealed batches go."""

    def put(self, batch: LiveBatch) -> None:
        """Queue a batch; does not wait."""

    @property
    def queued_bytes(self) -> int:
        """Memory of the batches that wait."""


@dataclass(slots=True)
class _Open:
    number: int
    opened: Opened
    skipped: int = 0
    rows: int = 0


class Recorder:
    """The thread, and what it holds.

    Args:
        row_format: of the records.
        top_k: choices of a token in a layer.
        sink: where sealed batches go.
        limit_bytes: memory for rows, queued batches included.
        seal_seconds: a finished request is sealed this soon.
        period_of: the run that belongs to a time (seconds since 1970).
        wake_rows: steps wait until there are so many rows of them.
        drop: told why requests are not recorded, and how many.
        forget: told of each request that is given up here.
        hash_key: of the digests of prompts; without one, they are plain SHA-256.
        failed: told of an error that ends recording.
        clock: seconds since 1970.
        cores: that the thread may run on.
    """

    def __init__(
        self,
        row_format: RowFormat,
        top_k: int,
        sink: BatchSink,
        *,
        limit_bytes: int,
        seal_seconds: float,
        period_of: Callable[[float], str],
        wake_rows: int,
        drop: Callable[[str, int], None],
        forget: Callable[[str], None],
        hash_key: bytes | None = None,
        failed: Callable[[BaseException], None],
        clock: Callable[[], float] = time.time,
        cores: Iterable[int] = (),
    ) -> None:
        self._format = row_format
        self._choices_per_row = row_format.num_layers * top_k
        self._row_bytes = row_format.row_bytes + 4
        self._sink = sink
        self._limit = limit_bytes
        self._seal_seconds = seal_seconds
        self._period_of = period_of
        self._drop = drop
        self._forget = forget
        self._hash_key = hash_key
        self._failed = failed
        self._clock = clock
        self._log = RowLog(row_format)
        self._inbox = Inbox(wake_rows)
        self._open: dict[str, _Open] = {}
        self._free: list[int] = []
        self._numbers = 0
        self._finished: list[tuple[int, LiveRequest]] = []
        self._finished_rows = 0
        self._other_bytes = 0  # of finished and aborted requests, beside their rows
        self._aborted: list[dict[str, Any]] = []
        self._unwanted: list[int] = []  # numbers whose rows are to be forgotten
        self._unwanted_rows = 0
        self._held = 0  # requests that were opened, and are neither dropped nor passed on
        self._period = ""
        self._sealed_from = 0.0
        self._broken = False
        self._thread = free_thread(self._run, "tracer-live-rows", cores)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def put(self, message: Any, rows: int | None = None) -> None:
        """Take a message from any thread; never waits. ``rows`` None: look at it at once."""
        self._inbox.put(message, rows)

    def has_room(self) -> bool:
        """Whether another request may begin."""
        return not self._broken and self.host_bytes < _ROOM * self._limit

    @property
    def host_bytes(self) -> int:
        """Bytes of requests that are held or queued."""
        held = self._log.num_rows * self._row_bytes + self._other_bytes
        return held + self._sink.queued_bytes

    def close(self) -> None:
        """Seal what is finished, give up what is open, end the thread."""
        self._inbox.put(Tick(close=True))
        self._thread.join()

    def join(self) -> None:
        """Wait until all messages were handled."""
        self._inbox.join()

    def _run(self) -> None:
        running = True
        while running:
            items = self._inbox.take()
            for item in items:
                self._attempt(item)
                if isinstance(item, Forwarded):
                    item.slot.release()
                running = running and not (isinstance(item, Tick) and item.close)
            self._attempt(None)
            self._inbox.done(len(items))

    def _attempt(self, item: Any) -> None:
        """After an error messages are only drained, so that their memory is given back."""
        if self._broken:
            self._drop("error", int(isinstance(item, Opened)))
            return
        try:
            self._held += isinstance(item, Opened)
            self._handle(item)
        except Exception as error:  # noqa: BLE001 - serving goes on
            self._broken = True
            self._drop("error", self._held)
            self._failed(error)

    def _handle(self, item: Any) -> None:
        match item:
            case None:
                self._forget_rows()
            case Forwarded():
                self._append(item)
            case Opened():
                number = self._free.pop() if self._free else self._numbers
                self._numbers += number == self._numbers
                self._open[item.request_id] = _Open(number, item)
            case Ended():
                self._end(item)
            case Lost():
                self._give_up(item.request_ids, item.reason)
            case Tick():
                self._look_at_the_clock(item)

    def _append(self, step: Forwarded) -> None:
        for request_id, count in step.skipped:
            if (known := self._open.get(request_id)) is not None:
                known.skipped = max(known.skipped, count)
        known_ones = [self._open.get(name) for name in step.request_ids]
        wanted_rows = 0
        for one, count in zip(known_ones, step.row_counts, strict=True):
            if one is not None:
                one.rows += count
                wanted_rows += count
        num_bytes = wanted_rows * self._row_bytes
        if self._unwanted and self.host_bytes + num_bytes > self._limit:
            self._take([])
        if self.host_bytes + num_bytes > self._limit:
            mine = [one.opened.request_id for one in known_ones if one is not None]
            self._give_up(mine, "queue_full")
            for name in mine:
                self._forget(name)
            return
        numbers = np.array(
            [NOBODY if one is None else one.number for one in known_ones], dtype=np.int32
        )
        owners = np.repeat(numbers, step.row_counts)
        rows = step.slot.rows()
        if wanted_rows < len(rows):
            wanted = owners != NOBODY
            rows, owners = rows[wanted], owners[wanted]
        self._log.append(rows, owners)

    def _give_up(self, request_ids: Sequence[str], reason: str) -> None:
        """Drop those of them that are open, so that each is counted once."""
        for name in request_ids:
            if (known := self._open.pop(name, None)) is not None:
                self._mark_unwanted(known)
                self._held -= 1
                self._drop(reason, 1)

    def _mark_unwanted(self, known: _Open) -> None:
        self._unwanted.append(known.number)
        self._unwanted_rows += known.rows

    def _forget_rows(self) -> None:
        """Free what nobody wants, once it is worth a copy of all other rows."""
        if self._unwanted and self._unwanted_rows * _WORTH >= self._log.num_rows:
            self._take([])

    def _end(self, ended: Ended) -> None:
        known = self._open.pop(ended.request_id, None)
        if known is None:
            return
        self._turn_to(self._clock())
        row = live_row(known.opened, ended, self._hash_key)
        if ended.finish_reason in CUT_SHORT or not ended.output_token_ids:
            self._mark_unwanted(known)
            self._aborted.append({**row, "status": "aborted", "cached_prefix_tokens": 0})
        else:
            prompt = known.opened.prompt_token_ids
            finished = FinishedRequest(
                ended.request_id,
                ended.request_id,
                known.opened.domain,
                len(prompt),
                [*prompt, *ended.output_token_ids],
            )
            request = LiveRequest(finished, {**row, "status": "complete"}, known.skipped)
            self._finished.append((known.number, request))
            self._finished_rows += known.rows
            self._other_bytes += request.host_bytes
        self._other_bytes += REQUEST_BYTES
        # Sealing takes as much again for the tokens: those from the prefix cache have no row.
        num_bytes = self._finished_rows * self._row_bytes + 2 * self._other_bytes
        if (
            self._finished_rows * self._choices_per_row >= SHARD_CHOICES
            or num_bytes > self._limit / 4
        ):
            self._seal()

    def _look_at_the_clock(self, tick: Tick) -> None:
        now = self._clock()
        if tick.close:
            self._give_up(list(self._open), "stopped")
            self._seal()
            return
        self._turn_to(now)
        waiting = bool(self._finished or self._aborted)
        # A clock that was set back must not make them wait for its return.
        if waiting and not 0 <= now - self._sealed_from < self._seal_seconds:
            self._seal()

    def _turn_to(self, now: float) -> None:
        """A request belongs to the run in whose time it ended."""
        period = self._period_of(now)
        if period != self._period:
            self._seal()
            self._period = period
        if not self._finished and not self._aborted:
            self._sealed_from = now

    def _seal(self) -> None:
        if not self._finished and not self._aborted:
            return
        finished, self._finished, self._finished_rows = self._finished, [], 0
        aborted, self._aborted = self._aborted, []
        rows = self._take(finished)
        batch = LiveBatch(self._period, [one for _, one in finished], rows, aborted)
        self._held -= batch.num_chosen
        self._sink.put(batch)
        self._other_bytes = 0

    def _take(self, finished: Sequence[tuple[int, LiveRequest]]) -> TakenRows:
        """The rows of finished requests; those of unwanted ones are forgotten on the way."""
        unwanted, self._unwanted, self._unwanted_rows = self._unwanted, [], 0
        numbers = [number for number, _ in finished]
        lengths = [one.finished.num_forwarded for _, one in finished]
        taken = self._log.take([*numbers, *unwanted], [*lengths, *([0] * len(unwanted))])
        self._free += [*numbers, *unwanted]
        return TakenRows(taken.rows, taken.seen, taken.starts[: len(finished) + 1]).compact()
