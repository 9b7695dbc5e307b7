"""Makes durable shard files part of the tables: every request whole, every batch once.

A batch is the shards of some finished requests with their rows of `requests`. Delta commits
one table at a time, so a batch is first *staged*: one JSON file names all its Parquet files.
From then on it will be committed, by this process or by the next one that writes the run.
The tables are committed in a fixed order with `requests` last; a request that is there has
all its rows. `routers` belongs to the run, not to a batch: once the run has some, no other batch
adds to them.

A Delta application transaction id does not by itself stop a replay, so each commit opens the
table, checks the id and commits on that same handle.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
from deltalake import CommitProperties, Transaction
from deltalake.transaction import AddAction

from tracer.schema import arrow_schema
from tracer.store.batch_numbers import batch_app_id
from tracer.store.delta_tables import COMMIT_TRIES, until_committed
from tracer.store.lake import Lake
from tracer.store.manifests import (
    committed_files,
    file_as_committed,
    read_batch,
    stage_batch,
    staged_batches,
)
from tracer.store.parquet_files import ShardFile, write_table
from tracer.store.parquet_source import read_footer
from tracer.store.shares import BATCHES_OF_A_SHARE, share_of
from tracer.store.storage import Lock, Storage

__all__ = [
    "COMMIT_ORDER",
    "commit_batch",
    "file_statistics",
    "next_batch",
    "recover",
    "stray_files",
    "write_requests",
]

COMMIT_ORDER = (
    "routing",
    "candidates",
    "router_logits",
    "routers",
    "tokens",
    "usage",
    "usage_by_domain",
    "requests",
)
_STATISTICS = ("run_id", "layer_id", "position", "request_id")


def write_requests(
    lake: Lake, run_id: str, batch: int, rows: Sequence[Mapping[str, Any]]
) -> ShardFile:
    """Write the batch's rows of `requests` to a durable file, not yet committed."""
    table = pa.Table.from_pylist([dict(row) for row in rows], schema=arrow_schema("requests"))
    # Named by what is in it: a writer that was overtaken cannot replace what another one wrote.
    digest = hashlib.sha256(json.dumps(table.to_pylist()).encode()).hexdigest()[:8]
    return write_table(lake.storage, "requests", run_id, f"{batch:06d}-{digest}", [table])


def commit_batch(lake: Lake, run_id: str, batch: int, files: Iterable[ShardFile]) -> None:
    """Stage a batch, commit its files table by table, file it as committed."""
    _publish(lake, run_id, stage_batch(lake.storage, run_id, batch, list(files)))


def recover(lake: Lake, run_id: str, lock: Lock, share: int | None = None) -> int:
    """Bring a run back to whole batches after a crash, under the run's write lock.

    Finishes batches that were staged, then removes ``stray_files``.

    Args:
        lake: which.
        run_id: of the run.
        lock: what is held.
        share: what this one wrote alone, under its own lock; others may be writing.

    Returns:
        Number of files removed.

    Raises:
        LakeBusyError: another process has taken the run over.
    """
    for staged in staged_batches(lake.storage, run_id):
        if share in (None, share_of(staged)):
            _publish(lake, run_id, staged)
    strays = [name for name in stray_files(lake, run_id) if share in (None, share_of(name))]
    for name in strays:
        lock.check()
        lake.storage.remove(name)
    return len(strays)


def stray_files(lake: Lake, run_id: str) -> list[str]:
    """Names of files in a run's folders that were never part of a table.

    Those that a table named once and names no more are not among them: a reader may be at them.
    """
    # Listed first: what is committed from here on is among what is read next. Compacted files have
    # a folder and a writer of their own.
    found = {table: lake.storage.names(f"{table}/{run_id}") for table in COMMIT_ORDER}
    committed = committed_files(lake.storage, run_id)
    strays: list[str] = []
    for table, names in found.items():
        live = set(lake.named_files(table, run_id))
        strays += [
            name
            for name in names
            if lake.storage.locate(name) not in live and name not in committed
        ]
    return strays


def next_batch(lake: Lake, run_id: str, share: int = 0) -> int:
    """Number of the first batch of a share that was not committed yet."""
    batch = lake.last_batches().get((run_id, share), share * BATCHES_OF_A_SHARE - 1) + 1
    # Another Delta tool may have merged the files, or the run was deleted with half a batch in the
    # tables: the ids of the commits stay, and what has a known one is not committed.
    tables = [lake.delta(table) for table in COMMIT_ORDER if not lake.is_absent(table)]
    while any(one.transaction_version(batch_app_id(run_id, batch)) is not None for one in tables):
        batch += 1
    return batch


def _publish(lake: Lake, run_id: str, staged: str) -> None:
    files = read_batch(lake.storage, staged)
    for table in COMMIT_ORDER:
        mine = [file for file in files if file.table == table and file.num_rows]
        if mine:
            if table == "routers" and lake.named_files(table, run_id):
                continue
            _add_once(lake, table, mine, batch_app_id(run_id, int(PurePosixPath(staged).stem)))
    file_as_committed(lake.storage, run_id, staged)


def _add_once(lake: Lake, table: str, files: Sequence[ShardFile], app_id: str) -> None:
    """One Delta commit that adds the files, unless a commit with this id is there already."""

    def add() -> None:
        delta = lake.delta(table, create=True)
        if delta.transaction_version(app_id) is not None:
            return
        delta.create_write_transaction(
            [_add_action(lake, file) for file in files],
            mode="append",
            schema=arrow_schema(table),
            commit_properties=CommitProperties(
                app_transactions=[Transaction(app_id, 1)], max_commit_retries=COMMIT_TRIES
            ),
        )
        lake.storage.sync_log(table)

    until_committed(lake.storage, add)


def _add_action(lake: Lake, file: ShardFile) -> AddAction:
    return AddAction(
        path=file.path,
        size=file.size,
        partition_values={},
        modification_time=file.modified_ms,
        data_change=True,
        stats=file_statistics(lake.storage, file),
    )


def file_statistics(storage: Storage, file: ShardFile) -> str:
    """What a Delta table says of a file: its rows and the bounds that readers prune by; JSON."""
    footer = read_footer(storage.locate(f"{file.table}/{file.path}"))
    lows: dict[str, Any] = {}
    highs: dict[str, Any] = {}
    for group in range(footer.num_row_groups):
        for index in range(footer.num_columns):
            column = footer.row_group(group).column(index)
            name, statistics = column.path_in_schema, column.statistics
            if name in _STATISTICS and statistics is not None and statistics.has_min_max:
                lows[name] = min(lows.get(name, statistics.min), statistics.min)
                highs[name] = max(highs.get(name, statistics.max), statistics.max)
    return json.dumps({"numRecords": file.num_rows, "minValues": lows, "maxValues": highs})
