"""Runs of live traffic in a lake: begun, continued by batches, closed; those cut off are finished.

A run covers some hours and one start of a server. Its name is the configured one and the time, with
a number behind it where the name is taken: by an earlier start in the same hours, or by another
server. Names are made here, never from what a request says.
"""

import datetime
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from tracer.errors import LakeBusyError, NotALakeError, TracerError
from tracer.live.config import LiveConfig
from tracer.store.commit import next_batch, recover
from tracer.store.lake import Lake, utc_now
from tracer.store.parquet_files import ShardFile
from tracer.store.run_writer import RunWriter
from tracer.store.shard import ShardWriter
from tracer.store.storage import Lock

__all__ = ["DATASET", "LiveRun", "LiveRuns", "live_run_ids", "period_of"]

# `runs.dataset` of live traffic.
DATASET = "live"
_MOST_NUMBERS = 10_000
_SECONDS_PER_HOUR = 3600


def period_of(seconds: float, run_hours: int) -> str:
    """When the run of a time (seconds since 1970) began, as in its name: hours of UTC."""
    hours = int(seconds // _SECONDS_PER_HOUR) // run_hours * run_hours
    begin = datetime.datetime.fromtimestamp(hours * _SECONDS_PER_HOUR, datetime.UTC)
    return f"{begin:%Y-%m-%dT%H}"


def live_run_ids(rows: Sequence[Mapping[str, Any]], name: str) -> list[str]:
    """Runs of live traffic under a configured name, oldest first."""
    return [row["run_id"] for row in rows if row["dataset"] == DATASET and _name_of(row) == name]


def _name_of(row: Mapping[str, Any]) -> str | None:
    try:
        name = json.loads(row["options"] or "{}").get("live", {}).get("name")
    except (ValueError, AttributeError):
        return None
    return name if isinstance(name, str) else None


@dataclass(slots=True)
class LiveRun:
    """An open run under its lock.

    bytes_written: committed by this process
    """

    period: str
    row: dict[str, Any]
    target: RunWriter
    shards: ShardWriter
    lock: Lock
    held: AbstractContextManager[Lock]
    bytes_written: int = 0

    @property
    def run_id(self) -> str:
        """Its name."""
        return self.target.run_id

    def commit(self, shards: Sequence[ShardFile], requests: Sequence[Mapping[str, Any]]) -> int:
        """Commit the next batch; returns its bytes. May be called again after an error."""
        num_bytes = self.target.commit(self.target.next_batch, shards, requests)
        self.target.next_batch += 1
        self.bytes_written += num_bytes
        return num_bytes


class LiveRuns:
    """The run that is written now.

    Args:
        config: of the server.
        row: of `runs`, without name, status, times and options.
        options: what its column `options` says besides.
        tally: counts of the run so far, asked when it is closed: its reasons for dropped requests.
    """

    def __init__(
        self,
        config: LiveConfig,
        row: Mapping[str, Any],
        options: Mapping[str, Any],
        tally: Callable[[], Mapping[str, int]],
    ) -> None:
        self._config = config
        self._row = dict(row)
        self._options = dict(options)
        self._tally = tally
        self._told: dict[str, int] = {}
        self._looked = False
        self._period, self._number = "", 0
        self.current: LiveRun | None = None

    def look_back(self) -> Lake | None:
        """Finish the runs of servers that were killed; None where there is no lake yet.

        Raises:
            OSError, TracerError: the lake cannot be used now; ``of`` will look.
        """
        try:
            lake = Lake.open(self._config.lake)
        except NotALakeError:
            return None
        self.finish_cut_off(lake)
        self._looked = True
        return lake

    def of(self, period: str) -> LiveRun:
        """The run of a period; begins it, and ends another one, where that is needed.

        Raises:
            OSError, TracerError: the lake cannot be used now; try again.
        """
        if self.current is not None and self.current.period != period:
            self.close()
        if self.current is None:
            lake = Lake.create(self._config.lake)
            if not self._looked:
                self.finish_cut_off(lake)
                self._looked = True
            self.current = self._begin(lake, period)
        return self.current

    def _begin(self, lake: Lake, period: str) -> LiveRun:
        lake.add_columns()
        # Not again what this process called one that was deleted since.
        first = self._number + 1 if period == self._period else 1
        for number in range(first, first + _MOST_NUMBERS):
            run_id = f"{self._config.name}-{period}" + (f"-{number}" if number > 1 else "")
            held = lake.writing(run_id)
            try:
                lock = held.__enter__()
            except LakeBusyError:
                continue
            try:
                if any(known["run_id"] == run_id for known in lake.runs()):
                    held.__exit__(None, None, None)
                    continue
                row = {
                    **self._row,
                    "run_id": run_id,
                    "status": "running",
                    "dataset": DATASET,
                    "options": self._options_now({}),
                    "started_at": utc_now(),
                    "finished_at": None,
                }
                lake.put_run(row)
                shards = ShardWriter(
                    lake.storage, run_id, row["num_experts"], row["weight_precision"]
                )
                # One that was deleted may have had this name: its batches keep their numbers.
                target = RunWriter(lake, run_id, frozenset(), next_batch(lake, run_id), lock)
                self._period, self._number = period, number
                return LiveRun(period, row, target, shards, lock, held)
            except BaseException:
                held.__exit__(None, None, None)
                raise
        raise LakeBusyError(f"{self._config.name}-{period}")

    def close(self) -> None:
        """End the run, if there is one: it is complete, what was dropped is said in its row.

        Raises:
            OSError, TracerError: the lake cannot be used now; try again.
        """
        if self.current is None:
            return
        run, dropped = self.current, self._dropped()
        run.lock.check()
        run.target.lake.put_run(
            {
                **run.row,
                "status": "complete",
                "finished_at": utc_now(),
                "num_dropped": sum(dropped.values()),
                "options": self._options_now(dropped),
            }
        )
        for reason, count in dropped.items():
            self._told[reason] = self._told.get(reason, 0) + count
        self.current = None
        run.held.__exit__(None, None, None)

    def abandon(self) -> None:
        """Let go of a run that another process has taken over; it is finished as one cut off."""
        if self.current is not None:
            run, self.current = self.current, None
            run.held.__exit__(None, None, None)

    def _dropped(self) -> dict[str, int]:
        """Dropped requests that no run has told of yet."""
        counts = {
            reason: count - self._told.get(reason, 0) for reason, count in self._tally().items()
        }
        return {reason: count for reason, count in counts.items() if count}

    def _options_now(self, dropped: Mapping[str, int]) -> str:
        live = {**self._options, "name": self._config.name}
        if dropped:
            live["dropped"] = dict(dropped)
        return json.dumps({"live": live}, sort_keys=True)

    def finish_cut_off(self, lake: Lake) -> list[str]:
        """Finish the runs of servers that were killed: batches that were staged are committed.

        Returns:
            Their names.
        """
        finished: list[str] = []
        rows = {row["run_id"]: row for row in lake.runs() if row["status"] == "running"}
        for run_id in live_run_ids(list(rows.values()), self._config.name):
            try:
                with lake.writing(run_id) as lock:
                    recover(lake, run_id, lock)
                    lock.check()
                    row = {**rows[run_id], "status": "cut_off", "finished_at": utc_now()}
                    lake.put_run(row)
            except LakeBusyError:  # a server writes it
                continue
            except TracerError:  # damaged: `tracer verify` says how
                continue
            finished.append(run_id)
        return finished
