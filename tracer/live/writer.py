"""Writes sealed batches into the lake: one thread, which alone may wait for a disk.

A batch that cannot be written is tried again until it can: meanwhile others wait behind it, the
recorder's memory fills, and requests are dropped before they begin. When the lake is there again
everything that waited is written. What is wrong with a request drops that request only.
"""

import errno
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from deltalake.exceptions import DeltaError

from tracer.capture.row_format import RowFormat
from tracer.errors import DamagedDataError, LakeBusyError, TracerError, first_line
from tracer.live.batch import LiveBatch, LiveRequest, assemble_sound
from tracer.live.config import LiveConfig
from tracer.live.retention import keep_within
from tracer.live.runs import LiveRun, LiveRuns
from tracer.live.status import Counts
from tracer.live.threads import free_thread
from tracer.store.parquet_files import ShardFile
from tracer.store.shard_rows import ShardRows

__all__ = ["ABORTED", "LakeWriter"]

# Reason of requests that the client gave up: they are listed, without rows.
ABORTED = "aborted"

_FIRST_RETRY_SECONDS, _LAST_RETRY_SECONDS = 1.0, 15.0
# Of an error that a healthy lake does not raise.
_TRIES = 3
_RETENTION_SECONDS = 300.0
# A run is ended early at this share of `disk_gb`, so that there is always one to delete.
_SHARE_OF_DISK = 0.25
_GB = 1e9

Texts = Callable[[LiveRequest], tuple[str, str]]


class LakeWriter:
    """The thread and its queue.

    Args:
        config: of the server.
        runs: of this configuration.
        row_format: of the records.
        layer_ids: the layers in a record.
        worker: its part of shard names.
        counts: where what is written is counted.
        drop: told why chosen requests are not in the lake, and how many.
        period_now: of the run that belongs to this moment.
        texts: prompt and output of a request, where they are kept.
        cores: that the thread may run on.
    """

    def __init__(
        self,
        config: LiveConfig,
        runs: LiveRuns,
        *,
        row_format: RowFormat,
        layer_ids: Sequence[int],
        worker: str,
        counts: Counts,
        drop: Callable[[str, int], None],
        period_now: Callable[[], str],
        texts: Texts | None = None,
        cores: Iterable[int] = (),
    ) -> None:
        self._config = config
        self._runs = runs
        self._format = row_format
        self._layer_ids = layer_ids
        self._worker = worker
        self._counts = counts
        self._drop = drop
        self._period_now = period_now
        self._texts = texts
        self._batches: deque[LiveBatch] = deque()
        self._bytes = 0
        self._changed = threading.Condition()
        self._closing = threading.Event()
        self._kept_at = 0.0
        self._left = False
        self._failing: dict[str, str | None] = {}
        self._thread = free_thread(self._run, "tracer-live-lake", cores)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    @property
    def queued_bytes(self) -> int:
        """Memory of the batches that wait or are being written."""
        return self._bytes

    def put(self, batch: LiveBatch) -> None:
        """Queue a batch; does not wait."""
        with self._changed:
            self._batches.append(batch)
            self._bytes += batch.host_bytes
            self._changed.notify_all()

    def close(self, seconds: float) -> bool:
        """Write what waits and end the run, for so many seconds; returns whether it was done."""
        self._closing.set()
        with self._changed:
            self._changed.notify_all()
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _look_back(self) -> None:
        """What earlier starts of the server have left."""
        if (lake := self._runs.look_back()) is not None:
            keep_within(lake, self._config)

    def _run(self) -> None:
        self._attempt(self._look_back)
        while True:
            with self._changed:
                self._changed.wait_for(
                    lambda: self._batches or self._closing.is_set(), _FIRST_RETRY_SECONDS
                )
                batch = self._batches[0] if self._batches else None
            if batch is not None:
                self._keep(batch)
                with self._changed:
                    self._batches.popleft()
                    self._bytes -= batch.host_bytes
            elif self._closing.is_set():
                # A batch that was left may be staged: the next start finishes the run then.
                self._attempt(self._runs.abandon if self._left else self._runs.close)
                return
            else:
                self._attempt(self._tidy)

    def _attempt(self, work: Callable[[], None]) -> bool:
        name = getattr(work, "__name__", "")
        try:
            work()
        except Exception as error:  # noqa: BLE001 - tried again later
            self._note(error)
            self._failing[name] = self._counts.last_error
            return False
        self._is_over(self._failing.pop(name, None))
        return True

    def _is_over(self, noted: str | None) -> None:
        """What failed works again: the status says so, unless it tells of something else by now."""
        if noted is not None and self._counts.last_error == noted:
            self._counts.last_error = None

    def _note(self, error: BaseException) -> None:
        self._counts.last_error = f"{type(error).__name__}: {first_line(error)}"[:500]

    def _keep(self, batch: LiveBatch) -> None:
        """Write a batch, however often that has to be tried."""
        work = _Work(batch)
        tries, wait = 0, _FIRST_RETRY_SECONDS
        noted: str | None = None
        while True:
            try:
                self._write(work)
            except (OSError, DeltaError, TracerError) as error:
                self._note(error)
                if isinstance(error, LakeBusyError):
                    self._runs.abandon()
                tries += isinstance(error, DamagedDataError)
                reason = "disk_full" if _is_full(error) else "lake_unavailable"
            except Exception as error:  # noqa: BLE001 - one batch must not end recording
                self._note(error)
                tries, reason = tries + 1, "error"
            else:
                self._is_over(noted)
                self._is_over(self._failing.pop(self._look_back.__name__, None))
                return
            noted = self._counts.last_error
            if tries >= _TRIES or self._closing.is_set():
                self._drop("error" if tries >= _TRIES else reason, work.num_left)
                self._left = True
                return
            self._closing.wait(wait)
            wait = min(2 * wait, _LAST_RETRY_SECONDS)

    def _write(self, work: "_Work") -> None:
        """Go on where the last try ended: files that are durable are not written again."""
        run = self._runs.of(work.batch.period)
        self._counts.run_id = run.run_id
        if work.run is not run:
            work.run, work.files, work.requests = run, None, None
        if work.requests is None:
            work.requests = self._check(work)
        if work.files is None:
            name = f"{run.target.next_batch:06d}-{self._worker}"
            work.files = [] if work.rows is None else run.shards.write(name, work.rows)
            work.rows = None
        if work.requests:
            self._counts.bytes_written += run.commit(work.files, work.requests)
        self._counts.recorded += work.num_recorded
        self._drop(ABORTED, len(work.batch.aborted))
        self._counts.tokens += work.num_tokens
        if self._config.disk_gb is not None:
            self._attempt(lambda: self._end_large(run))

    def _check(self, work: "_Work") -> list[dict[str, Any]]:
        """The rows of `requests` of a batch; requests with wrong records are left out."""
        batch = work.batch
        sound: Sequence[LiveRequest] = []
        if batch.requests:
            work.rows, sound, errors = assemble_sound(
                batch.requests, batch.rows, self._format, self._layer_ids
            )
            if errors:
                self._note(errors[0])
                if not work.told:
                    self._drop("mismatch", len(errors))
                work.told = True
        rows: list[dict[str, Any]] = []
        num_tokens = 0
        for request, traced in zip(sound, work.rows.requests if work.rows else (), strict=True):
            missing = request.finished.num_forwarded - traced.num_rows
            num_tokens += traced.num_rows
            prompt, output = self._texts(request) if self._texts is not None else (None, None)
            rows.append(
                {
                    **request.row,
                    "cached_prefix_tokens": missing,
                    "prompt_text": prompt,
                    "output_text": output,
                }
            )
        work.num_recorded, work.num_tokens = len(rows), num_tokens
        return [*rows, *batch.aborted]

    def _end_large(self, run: LiveRun) -> None:
        if run.bytes_written > _SHARE_OF_DISK * (self._config.disk_gb or 0) * _GB:
            self._runs.close()
            self._delete_old(run)

    def _tidy(self) -> None:
        """While nothing waits: end the run of a time that is over, delete old ones."""
        run = self._runs.current
        if run is None:
            return
        if run.period != self._period_now():
            self._runs.close()
            self._delete_old(run)
        elif time.monotonic() - self._kept_at > _RETENTION_SECONDS:
            self._delete_old(run)

    def _delete_old(self, run: LiveRun) -> None:
        self._kept_at = time.monotonic()
        keep_within(run.target.lake, self._config)


def _is_full(error: BaseException) -> bool:
    return getattr(error, "errno", None) == errno.ENOSPC or os.strerror(errno.ENOSPC) in str(error)


class _Work:
    """How far a batch has come."""

    def __init__(self, batch: LiveBatch) -> None:
        self.batch = batch
        self.run: LiveRun | None = None
        self.rows: ShardRows | None = None
        self.files: list[ShardFile] | None = None
        self.requests: list[dict[str, Any]] | None = None
        self.num_recorded = 0
        self.num_tokens = 0
        self.told = False

    @property
    def num_left(self) -> int:
        """Requests that are not written."""
        complete = len(self.batch.requests) if self.requests is None else self.num_recorded
        return complete + len(self.batch.aborted)
