"""Writes one run into a lake, in numbered batches, from wherever an earlier attempt stopped."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from tracer.store.commit import commit_batch, next_batch, recover, write_requests
from tracer.store.lake import Lake, utc_now
from tracer.store.parquet_files import ShardFile
from tracer.store.shares import (
    Share,
    check_split,
    forget_split,
    holding_share,
    in_turn,
    note_split,
)
from tracer.store.storage import Lock

__all__ = [
    "SHARD_CHOICES",
    "RunWriter",
    "chunks_by_choices",
    "finish_share",
    "writing_run",
    "writing_share",
]

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
        row = _begin(lake, row, refuse)
        recover(lake, run_id, lock)
        done = frozenset(lake.request_status(run_id))
        yield RunWriter(lake, run_id, done, next_batch(lake, run_id), lock)
        lock.check()
        _complete(lake, row)


@contextmanager
def writing_share(
    lake: Lake,
    row: Mapping[str, Any],
    share: Share,
    request_ids: Collection[str],
    refuse: Callable[[Mapping[str, Any], Mapping[str, Any]], None] | None = None,
) -> Iterator[RunWriter]:
    """As ``writing_run``, for one share of the run, while other processes write the others.

    Args:
        lake: where to.
        row: of `runs`, without status and times.
        share: which; see ``tracer.store.shares``.
        request_ids: of the whole run. The share that finds all of them in the lake when it ends
            makes the run complete.
        refuse: as there.

    Raises:
        LakeBusyError: another process writes this share, or the whole run.
        InputError: the run is split into another number of shares.
    """
    run_id = row["run_id"]
    with ExitStack() as stack:
        with in_turn(lake.storage, run_id):
            row = _begin(lake, row, refuse)
            if row["status"] != "complete":
                note_split(lake.storage, run_id, share.count)
            lock = stack.enter_context(holding_share(lake.storage, run_id, share))
        recover(lake, run_id, lock, share.index)
        done = frozenset(lake.request_status(run_id))
        yield RunWriter(lake, run_id, done, next_batch(lake, run_id, share.index), lock)
        lock.check()
        _complete_if_whole(lake, row, request_ids)


def finish_share(
    lake: Lake,
    row: Mapping[str, Any],
    share: Share,
    mine: Collection[str],
    request_ids: Collection[str],
) -> bool:
    """End a share that was stopped after its last request was in the lake; False if it was not.

    Args:
        lake: which.
        row: the run's, as stored.
        share: which.
        mine: ids of its requests.
        request_ids: of the whole run.

    Raises:
        LakeBusyError: another process writes this share, or the whole run.
        InputError: the run is split into another number of shares.
    """
    run_id = row["run_id"]
    with ExitStack() as stack:
        # As who begins one: files of whoever writes the whole run may be those of this share.
        with in_turn(lake.storage, run_id):
            check_split(lake.storage, run_id, share.count)
            lock = stack.enter_context(holding_share(lake.storage, run_id, share))
            if not lake.request_status(run_id).keys() >= set(mine):
                return False
            if lake.run(run_id)["status"] != "complete":
                note_split(lake.storage, run_id, share.count)
        recover(lake, run_id, lock, share.index)
        _complete_if_whole(lake, row, request_ids)
        return True


def _complete_if_whole(lake: Lake, row: Mapping[str, Any], request_ids: Collection[str]) -> None:
    """Complete the run of ``row`` if all its requests are in the lake.

    Who asks last finds them all; several that do write the same row once, for they take turns.
    """
    run_id = row["run_id"]
    with in_turn(lake.storage, run_id) as lock:
        if lake.request_status(run_id).keys() >= set(request_ids):
            lock.check()
            _complete(lake, row)


def _begin(
    lake: Lake,
    row: Mapping[str, Any],
    refuse: Callable[[Mapping[str, Any], Mapping[str, Any]], None] | None,
) -> dict[str, Any]:
    """Put the run into `runs`, unless it is there; returns its row with status and times."""
    lake.add_columns()
    stored = _stored(lake, row["run_id"])
    if stored is not None:
        if refuse is not None:
            refuse(stored, row)
        return {**row, **{name: stored[name] for name in ("status", "started_at", "finished_at")}}
    begun = {**row, "status": "running", "started_at": utc_now(), "finished_at": None}
    lake.put_run(begun)
    return begun


def _complete(lake: Lake, row: Mapping[str, Any]) -> None:
    stored = _stored(lake, row["run_id"])
    if stored is None or stored["status"] != "complete":
        lake.put_run({**row, "status": "complete", "finished_at": utc_now()})
    forget_split(lake.storage, row["run_id"])


def _stored(lake: Lake, run_id: str) -> dict[str, Any] | None:
    return {known["run_id"]: known for known in lake.runs()}.get(run_id)


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
