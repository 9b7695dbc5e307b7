"""Writes one run into a lake, in numbered batches, from wherever an earlier attempt stopped."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tracer.store.commit import commit_batch, next_batch, recover, write_requests
from tracer.store.lake import Lake, utc_now
from tracer.store.parquet_files import ShardFile
from tracer.store.storage import Lock

__all__ = ["SHARD_CHOICES", "RunWriter", "chunks_by_choices", "writing_run"]

# A shard holds about this many choices: 16 MB at k = 8, OLMoE-like.
#
# ShardWriter.write then needs, beside the rows it is given, about
#     (10 + 6 * layers sorted together) bytes * SHARD_CHOICES / layers
#     + 25 bytes * entries in the lists of `usage`,
# see ``ShardRows.choices`` for the layers. An entry is an expert that a request chose in a phase
# and layer, so there are at most twice as many as choices and mostly far fewer. Measured at 8
# million choices, rise of the resident memory: 37 MB (k = 8 of 64, 16 layers, requests of 300
# tokens), 91 MB (the same, of 30 tokens), 125 MB (k = 4 of 16, 4 layers, 30 tokens), 127 MB (k = 8
# of 64, one layer, 300 tokens).
SHARD_CHOICES = 8_000_000


@dataclass(slots=True)
class RunWriter:
    """The run while its lock is held.

    done: ids of the requests that are in the lake; next_batch: number of the next batch
    lock: the run's write lock; None where nobody else knows of the run
    """

    lake: Lake
    run_id: str
    done: frozenset[str]
    next_batch: int
    lock: Lock | None = None

    def commit(
        self, batch: int, shards: Sequence[ShardFile], requests: Sequence[Mapping[str, Any]]
    ) -> int:
        """Commit a batch: its shards and its rows of `requests`, ``run_id`` added.

        Returns:
            Bytes of all its files.

        Raises:
            LakeBusyError: another process has taken the run over; this one was away too long.
        """
        rows = [{"run_id": self.run_id, **row} for row in requests]
        files = [*shards, write_requests(self.lake, self.run_id, batch, rows)]
        if self.lock is not None:
            self.lock.check()
        commit_batch(self.lake, self.run_id, batch, files)
        return sum(file.size for file in files)


@contextmanager
def writing_run(
    lake: Lake,
    row: Mapping[str, Any],
    refuse: Callable[[Mapping[str, Any], Mapping[str, Any]], None] | None = None,
) -> Iterator[RunWriter]:
    """Begin or resume the run of ``row`` under its write lock; complete it if the block does.

    Args:
        lake: where to.
        row: of `runs`, without status and times.
        refuse: called with the stored row and this one where the run exists; raises if this
            cannot continue that. Under the lock, so that nobody begins the run in between.

    Raises:
        LakeBusyError: another process writes it.
    """
    run_id = row["run_id"]
    with lake.writing(run_id) as lock:
        lake.add_columns()
        stored = {known["run_id"]: known for known in lake.runs()}.get(run_id)
        if stored is not None and refuse is not None:
            refuse(stored, row)
        started_at = stored["started_at"] if stored else utc_now()
        row = {**row, "status": "running", "started_at": started_at, "finished_at": None}
        if stored is None:
            lake.put_run(row)
        recover(lake, run_id, lock)
        done = frozenset(lake.request_status(run_id))
        yield RunWriter(lake, run_id, done, next_batch(lake, run_id), lock)
        lock.check()
        if stored is None or stored["status"] != "complete":
            lake.put_run({**row, "status": "complete", "finished_at": utc_now()})


def chunks_by_choices(lengths: Iterable[tuple[Any, int]], per_token: int) -> Iterator[list[Any]]:
    """Group (item, tokens) into lists of about ``SHARD_CHOICES`` choices, in order."""
    group: list[Any] = []
    tokens = 0
    for item, length in lengths:
        group.append(item)
        tokens += length
        if tokens * per_token >= SHARD_CHOICES:
            yield group
            group, tokens = [], 0
    if group:
        yield group
