"""Single Delta tables of a lake: made, brought up to date, listed."""

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TypeVar
from urllib.parse import unquote

import pyarrow as pa
from deltalake import DeltaTable, Schema
from deltalake.exceptions import CommitFailedError, DeltaError

from tracer.errors import DamagedDataError
from tracer.schema import arrow_schema
from tracer.store.storage import Storage

__all__ = [
    "CHECKPOINT_EVERY",
    "COMMIT_TRIES",
    "PROPERTIES",
    "SCHEMA_VERSION",
    "NamedFile",
    "add_columns",
    "create_table",
    "inside",
    "named_files",
    "open_table",
    "schema_version",
    "set_properties",
    "until_committed",
]

# Of the lake's form; columns and tables that may be empty are added without a new one.
SCHEMA_VERSION = "1"
_VERSION_KEY = "moe_tracer.schema_version"
# Every commit reads the log from its last checkpoint on, once for each step of it.
CHECKPOINT_EVERY = 10
PROPERTIES = {
    _VERSION_KEY: SCHEMA_VERSION,
    "delta.checkpointInterval": str(CHECKPOINT_EVERY),
}
# Before giving up where others keep committing in between.
COMMIT_TRIES = 20
# Of a commit that a server does not answer; each of them is many requests.
_SILENT_TRIES = 3
# Seconds in which it is tried again in any case: a server under load may be slow three times.
_SILENT_FOR = 60.0

_Answer = TypeVar("_Answer")


def open_table(storage: Storage, table: str) -> DeltaTable:
    """A table at its newest version.

    Raises:
        DeltaError: it is gone or unreadable.
    """
    return DeltaTable(storage.locate(table), storage_options=storage.table_options)


def create_table(storage: Storage, table: str) -> None:
    """Make the empty table of this name unless it is there; several processes may try."""

    def create() -> None:
        try:
            DeltaTable.create(
                storage.locate(table),
                arrow_schema(table),
                mode="ignore",
                configuration=PROPERTIES,
                raise_if_key_not_exists=False,
                storage_options=storage.table_options,
            )
        except DeltaError:
            # Another process was faster; or this one was, and the server's answer was lost.
            with contextlib.suppress(DeltaError):
                open_table(storage, table)
                return
            raise

    until_committed(storage, create)


def schema_version(table: DeltaTable) -> str | None:
    """Version of the lake's form that the table was made with; None if it does not say."""
    version: str | None = table.metadata().configuration.get(_VERSION_KEY)
    return version


def add_columns(storage: Storage, table: str) -> list[str]:
    """Give a table that an older version made the columns that came since; returns their names.

    Raises:
        CommitFailedError: others kept committing in between.
    """
    wanted = Schema.from_arrow(arrow_schema(table)).fields

    def add(delta: DeltaTable) -> list[str]:
        known = {field.name for field in delta.schema().fields}
        missing = [field for field in wanted if field.name not in known]
        if missing:
            delta.alter.add_columns(missing)
        return [field.name for field in missing]

    return until_committed(storage, lambda: add(open_table(storage, table)))


def set_properties(storage: Storage, table: str) -> list[str]:
    """Give a table that an older version made the settings that came since; returns their names.

    Raises:
        CommitFailedError: others kept committing in between.
    """

    def add(delta: DeltaTable) -> list[str]:
        known = delta.metadata().configuration
        missing = {name: value for name, value in PROPERTIES.items() if name not in known}
        if missing:
            delta.alter.set_table_properties(missing, raise_if_not_exists=False)
        return sorted(missing)

    return until_committed(storage, lambda: add(open_table(storage, table)))


def until_committed(storage: Storage, attempt: Callable[[], _Answer]) -> _Answer:
    """Make an attempt at a commit, again where another commit landed in between.

    Also where a server gave no answer, or lost it: an attempt looks at the newest version and
    does nothing if what it wants is there.

    Raises:
        CommitFailedError: others kept committing in between.
        OSError: the disk or the server refuses.
    """
    silent, began = 0, time.monotonic()
    for _ in range(COMMIT_TRIES - 1):
        try:
            return attempt()
        except CommitFailedError:
            continue
        except OSError:
            silent += 1
            over = silent >= _SILENT_TRIES and time.monotonic() - began > _SILENT_FOR
            if over or not storage.is_remote:
                raise
    return attempt()


@dataclass(frozen=True, slots=True)
class NamedFile:
    """A file as a table's log names it now.

    path: relative to the table; size: bytes; num_rows: None where the log does not say
    """

    path: str
    size: int
    num_rows: int | None


def named_files(table: DeltaTable) -> list[NamedFile]:
    """The files that make up a table, by path.

    Raises:
        DamagedDataError: a path that leads out of the table's folder, which no lake of ours has.
    """
    actions = pa.table(table.get_add_actions(flatten=True))
    where = f"the log of {PurePosixPath(table.table_uri).name}"
    paths = [inside(unquote(name), where) for name in actions["path"].to_pylist()]
    counts = (
        actions["num_records"].to_pylist()
        if "num_records" in actions.column_names
        else [None] * len(paths)
    )
    files = map(NamedFile, paths, actions["size_bytes"].to_pylist(), counts)
    return sorted(files, key=lambda file: file.path)


def inside(name: str, where: str) -> str:
    """``name`` if it is a path below the folder that it is relative to.

    Raises:
        DamagedDataError: it is absolute, a URL, or climbs; ``where`` says who names it.
    """
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or ":" in path.parts[0]:
        raise DamagedDataError(
            f"{where} names {name!r}, a file outside its folder",
            "do not trust this lake; ask whoever gave it to you.",
        )
    return name
