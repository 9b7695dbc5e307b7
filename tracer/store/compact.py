"""Merges the small files of a run into files of about a shard each, rows and order unchanged.

Every table is merged by itself, each merge is one Delta commit that takes the small files out and
puts the merged one in. Readers see the table before it or after it. Writers are not held up: they
add files and touch none, and files that they are about to commit are not looked at.

The tables that are sorted by layer stay so: a merged file has one row group per layer, and in it
the files' rows in the order of their batches. `usage_by_domain` is summed.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from tracer.errors import LakeBusyError
from tracer.store.commit import COMMIT_ORDER, file_statistics
from tracer.store.lake import Lake
from tracer.store.manifests import note_merged
from tracer.store.merge import LAYERED, Merge
from tracer.store.parquet_source import read_footer
from tracer.store.removed_files import kept_files, note_removed
from tracer.store.replace_files import replace_files
from tracer.store.run_writer import SHARD_CHOICES
from tracer.store.storage import Lock

__all__ = ["Compaction", "compact_run"]

_FOLDER = "compacted"


@dataclass(frozen=True, slots=True)
class Compaction:
    """Files of the run in all tables, before and after."""

    before: int
    after: int


@dataclass(frozen=True, slots=True)
class _Source:
    """A file that may be merged.

    path: its location; values: in its longest column
    layers: of its row groups, none for tables without layers; None if it is not as this program
        writes, one layer in each, so it stays as it is
    """

    path: str
    values: int
    layers: tuple[int, ...] | None


def compact_run(
    lake: Lake, run_id: str, done: Callable[[str], None], *, values: int = SHARD_CHOICES
) -> Compaction:
    """Merge the run's small files, table by table; memory: see ``tracer.store.merge``.

    Args:
        lake: which.
        run_id: of the run; it may be written at the same time.
        done: told each table that is done, and of which run.
        values: of the lists of a merged file, at most about so many.

    Raises:
        LakeBusyError: another compaction is at this run.
        UnknownRunError: no such run.
        DamagedDataError: a file is gone or unreadable.
    """
    num_experts = int(lake.run(run_id)["num_experts"])
    before = after = 0
    with lake.compacting(run_id) as lock:
        kept = kept_files(lake.storage)
        for table in COMMIT_ORDER:
            unfinished = lake.storage.names(f"{table}/{run_id}/{_FOLDER}")
            files = lake.files(table, run_id)
            lock.check()
            _remove(lake, unfinished, {*map(lake.storage.name_of, files), *kept})
            merges = list(_groups([_source(table, file) for file in files], values))
            for group in merges:
                _merge(lake, table, run_id, group, num_experts, lock=lock)
            before += len(files)
            after += len(files) - sum(len(group) - 1 for group in merges)
            done(f"{table} of {run_id}")
    return Compaction(before, after)


def _remove(lake: Lake, names: Sequence[str], wanted: set[str]) -> None:
    """Merged files that an interrupted compaction did not commit."""
    for name in names:
        if name not in wanted:
            lake.storage.remove(name)


def _source(table: str, path: str) -> _Source:
    metadata = read_footer(path)
    layers: list[int] = []
    mixed, values = False, 0
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        columns = {
            group.column(index).path_in_schema: group.column(index)
            for index in range(group.num_columns)
        }
        values += max(column.num_values for column in columns.values())
        if table in LAYERED:
            bounds = columns["layer_id"].statistics
            mixed |= bounds is None or not bounds.has_min_max or bounds.min != bounds.max
            layers.append(-1 if mixed else bounds.min)
    mixed |= len(set(layers)) < len(layers)
    return _Source(path, values, None if mixed else tuple(layers))


def _groups(sources: Sequence[_Source], most: int) -> Iterator[list[_Source]]:
    """Files of the same layers, in the order of their batches, as many as make a merged file."""
    alike: dict[tuple[int, ...], list[_Source]] = {}
    for source in sorted(sources, key=lambda source: PurePosixPath(source.path).name):
        if source.layers is not None:
            alike.setdefault(source.layers, []).append(source)
    for group in alike.values():
        part: list[_Source] = []
        for source in group:
            if part and sum(one.values for one in part) + source.values > most:
                if len(part) > 1:
                    yield part
                part = []
            part.append(source)
        if len(part) > 1:
            yield part


def _merge(
    lake: Lake,
    table: str,
    run_id: str,
    sources: Sequence[_Source],
    num_experts: int,
    *,
    lock: Lock,
) -> None:
    paths = [source.path for source in sources]
    names = [lake.storage.name_of(path).removeprefix(f"{table}/") for path in paths]
    digest = hashlib.sha256("\n".join(names).encode()).hexdigest()[:8]
    first, last = (PurePosixPath(path).stem.split("-") for path in (paths[0], paths[-1]))
    # Names sort as batches do, those of merged files with their first batch.
    is_merged = PurePosixPath(paths[-1]).parent.name == _FOLDER
    name = f"{first[0]}-{last[1] if is_merged else last[0]}-{digest}"
    merge = Merge(lake.storage, table, run_id, f"{run_id}/{_FOLDER}", name)
    if table in LAYERED:
        merged = merge.by_layer(paths, sources[0].layers or (), num_experts)
    elif table == "usage_by_domain":
        merged = merge.sums(paths)
    else:
        merged = merge.rows(paths)
    lock.check()
    note_merged(lake.storage, run_id, merged)
    note_removed(lake.storage, run_id, [f"{table}/{path}" for path in names])
    added = {
        "path": merged.path,
        "size": merged.size,
        "modificationTime": merged.modified_ms,
        "stats": file_statistics(lake.storage, merged),
    }
    if not replace_files(lake.storage, table, "OPTIMIZE", names, [added]):
        raise LakeBusyError(run_id)  # another Delta tool is at the table
