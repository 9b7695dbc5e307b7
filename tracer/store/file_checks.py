"""What is wrong with the files of a lake, whatever their rows say."""

import contextlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from tracer.errors import DamagedDataError, first_line
from tracer.schema import TABLES, arrow_schema
from tracer.store.commit import COMMIT_ORDER, stray_files
from tracer.store.delta_tables import NamedFile, named_files
from tracer.store.lake import Lake
from tracer.store.manifests import read_digests, staged_batches
from tracer.store.parquet_source import is_outage, open_parquet, read_parquet
from tracer.store.storage import Storage

__all__ = [
    "FileFault",
    "SoundFiles",
    "check_files",
    "files_of_requests",
    "leftovers",
    "runs_with_files",
]

# Of the values in a file, how many are decoded at a time.
_ROWS_AT_ONCE = 1 << 16


@dataclass(frozen=True, slots=True)
class FileFault:
    """Something wrong with one file, or with a table's log.

    path: below the lake; run_id: whose file it is, None where its folder does not tell
    """

    table: str
    path: str
    run_id: str | None
    detail: str


def check_files(
    lake: Lake, run_id: str | None, checked: Callable[[str], None]
) -> Iterator[FileFault]:
    """Faults of every file that the tables name: gone, cut, changed, unreadable, another schema.

    Reads each file to its end. A file that was committed by this program is compared with the
    digest that it was committed with.

    Args:
        lake: which.
        run_id: only files of this run; those that another tool merged may hold it, too.
        checked: told each file below the lake that was looked at.
    """
    digests = read_digests(lake.storage, run_id)
    for table in TABLES:
        if lake.is_absent(table):
            continue
        try:
            named = named_files(lake.delta(table))
        except DamagedDataError as error:
            yield FileFault(table, table, None, str(error))
            continue
        for file in named:
            owner = _owner(table, file.path)
            if run_id is not None and owner not in (None, run_id):
                continue
            name = f"{table}/{file.path}"
            detail = _fault(lake.storage, name, table, file, digests.get(name))
            if detail:
                yield FileFault(table, name, owner, detail)
            checked(name)


def leftovers(lake: Lake, run_id: str) -> list[FileFault]:
    """What a crash left of a run: staged batches, and files that were never part of a table.

    No reader sees them. The next writer of the run, and ``recover``, clear them away.
    """
    staged = [(name, "a staged batch") for name in staged_batches(lake.storage, run_id)]
    try:
        strays = [(name, "a file no table names") for name in stray_files(lake, run_id)]
    except DamagedDataError:  # a table's log, which is told already
        strays = []
    return [
        FileFault(name.split("/", 1)[0], name, run_id, detail) for name, detail in staged + strays
    ]


def runs_with_files(lake: Lake) -> set[str]:
    """Runs that have a folder of their own with files that a table names."""
    owners: set[str | None] = set()
    for table in COMMIT_ORDER:
        with contextlib.suppress(DamagedDataError):  # a table's log, which is told already
            names = map(lake.storage.name_of, lake.named_files(table))
            owners |= {_owner(table, name.removeprefix(f"{table}/")) for name in names}
    return {owner for owner in owners if owner is not None}


class SoundFiles:
    """A lake without its faulty files, for those who read rows; see ``LakeFiles`` in analysis."""

    def __init__(self, lake: Lake, faults: Iterable[FileFault]) -> None:
        self._lake = lake
        self._faulty = {lake.storage.locate(fault.path) for fault in faults}
        self.location = lake.location

    def files(self, table: str, run_id: str | None = None) -> list[str]:
        """Locations of the sound files; none of a table whose log cannot be read."""
        try:
            named = self._lake.of_whole_batches(table, self._lake.named_files(table, run_id))
        except DamagedDataError:
            return []
        return [file for file in named if file not in self._faulty]

    def dataset(self, table: str, files: Sequence[str]) -> Any:
        """As ``Lake.dataset``."""
        return self._lake.dataset(table, files)

    def run(self, run_id: str | None = None) -> dict[str, Any]:
        """The row of one run; see ``Lake.run``."""
        return self._lake.run(run_id)


def files_of_requests(
    lake: SoundFiles, run_id: str, request_ids: Collection[str]
) -> dict[str, list[str]]:
    """Which files of `routing` hold rows of each request, relative to the lake."""
    found: dict[str, list[str]] = {}
    wanted = pc.field("request_id").isin(list(request_ids)) & (pc.field("run_id") == run_id)
    for path in lake.files("routing", run_id):
        rows = read_parquet(path, ["request_id"], wanted)
        for request_id in rows["request_id"].unique().to_pylist():
            found.setdefault(request_id, []).append(path.removeprefix(f"{lake.location}/"))
    return found


def _owner(table: str, path: str) -> str | None:
    """The run a file belongs to; None for those of all runs."""
    parts = PurePosixPath(path).parts
    return parts[0] if len(parts) > 1 and table != "runs" else None


def _fault(
    storage: Storage, name: str, table: str, file: NamedFile, digest: str | None
) -> str | None:
    """What is wrong with one file; None if nothing is."""
    try:
        other_bytes = _other_bytes(storage, name, file, digest)
        return other_bytes or _other_content(storage.locate(name), table, file)
    except FileNotFoundError:
        return "is gone"
    except (OSError, pa.ArrowException) as error:
        if is_outage(error):
            raise
        return f"cannot be read: {first_line(error)}"


def _other_bytes(storage: Storage, name: str, file: NamedFile, digest: str | None) -> str | None:
    size = storage.size(name)
    if storage.is_link(name):
        return "is a link, not a file"
    if size != file.size:
        return f"has {size:,} bytes where {file.size:,} were committed"
    if digest is not None and storage.digest(name) != digest:
        return "holds other bytes than were committed"
    return None


def _other_content(location: str, table: str, file: NamedFile) -> str | None:
    with open_parquet(location) as parquet:
        if other := _other_columns(table, parquet.schema_arrow):
            return f"has another schema: {other}"
        found = sum(part.num_rows for part in parquet.iter_batches(_ROWS_AT_ONCE))
    if file.num_rows is not None and found != file.num_rows:
        return f"has {found:,} rows where {file.num_rows:,} were committed"
    return None


def _other_columns(table: str, found: pa.Schema) -> str:
    """Columns that are not as the table's schema has them; those that came later may lack."""
    wanted = arrow_schema(table)
    types = dict(zip(found.names, found.types, strict=True))
    lacking = [
        f"{field.name} is absent"
        for field in wanted
        if field.name not in types and not field.nullable
    ]
    wrong = [
        f"{field.name} is {types[field.name]}"
        for field in wanted
        if field.name in types and not _alike(types[field.name], field.type)
    ]
    unknown = [f"{name} is unknown" for name in found.names if name not in wanted.names]
    return ", ".join([*lacking, *wrong, *unknown])


def _alike(found: pa.DataType, wanted: pa.DataType) -> bool:
    """Whether two types hold the same values; names inside lists and maps are writers' own."""
    if pa.types.is_string(wanted):  # other Delta tools note Arrow types of their own
        return found in (pa.string(), pa.large_string(), pa.string_view())
    if pa.types.is_list(wanted) and pa.types.is_list(found):
        return bool(found.value_type == wanted.value_type)
    if pa.types.is_map(wanted) and pa.types.is_map(found):
        return bool(found.key_type == wanted.key_type and found.item_type == wanted.item_type)
    return bool(found == wanted)
