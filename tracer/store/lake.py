"""The trace lake: Delta tables in a folder or a bucket, opened, created, listed and written to.

Each table is a Delta table of plain Parquet files, so Spark, Trino, Polars and DuckDB read it
without us. A lake is recognised by the Delta log of its `runs` table.
"""

import datetime
import re
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import DeltaError

from tracer.errors import (
    DamagedDataError,
    InputError,
    NotALakeError,
    UnknownRunError,
    first_line,
)
from tracer.schema import OPTIONAL_TABLES, TABLES, arrow_schema
from tracer.store.batch_numbers import batch_app_id, batch_of_sums, last_batches
from tracer.store.delta_tables import (
    SCHEMA_VERSION,
    add_columns,
    create_table,
    named_files,
    open_table,
    schema_version,
    until_committed,
)
from tracer.store.lake_location import is_lake, open_storage
from tracer.store.parquet_rows import RESTORE, rows_of_run, told_as_damage
from tracer.store.parquet_source import arrow_source, is_outage, read_footer
from tracer.store.shares import BATCHES_OF_A_SHARE, holding_run
from tracer.store.storage import Lock, Storage

__all__ = ["Lake", "check_run_id", "utc_now"]

_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,119}")


def check_run_id(run_id: str) -> str:
    """``run_id`` if it can name a folder and stand in a predicate.

    Raises:
        InputError: other characters than letters, digits, '.', '_', '-', or over 120 of them.
    """
    if not _RUN_ID.fullmatch(run_id):
        raise InputError(
            f"run id {run_id!r} cannot be used",
            "use up to 120 letters, digits, '.', '_' and '-', beginning with a letter or digit.",
        )
    return run_id


def utc_now() -> datetime.datetime:
    """Now, as `runs` stores it: UTC, microseconds."""
    return datetime.datetime.now(datetime.UTC)


class Lake:
    """An existing trace lake. ``Lake.open`` and ``Lake.create`` make one."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage

    @property
    def location(self) -> str:
        """Absolute path of its folder, or its URL."""
        return self.storage.location

    @classmethod
    def open(cls, path: Path | str) -> "Lake":
        """Open the lake at ``path``, a folder or an ``s3://`` URL.

        Raises:
            NotALakeError: nothing there, or something else.
            InputError: a lake of another schema version, a path delta-rs cannot work in, a server
                that cannot be used.
        """
        storage = open_storage(path)
        if not is_lake(storage):
            raise NotALakeError(path)
        lake = cls(storage)
        version = schema_version(lake.delta("runs"))
        if version != SCHEMA_VERSION:
            raise InputError(
                f"{path} has lake schema version {version or 'unknown'},"
                f" this program reads version {SCHEMA_VERSION}",
                f"`tracer upgrade --lake {path}` brings an older one up to date; a newer one needs"
                " a newer moe-tracer.",
            )
        return lake

    @classmethod
    def create(cls, path: Path | str) -> "Lake":
        """Open the lake at ``path``, or make one in a new or empty folder.

        Raises:
            InputError: the folder holds something else, or cannot be made.
        """
        storage = open_storage(path)
        if is_lake(storage):
            return cls.open(path)
        cls.check_usable(path)
        try:
            storage.prepare()
            for table in reversed(TABLES):  # runs last: it is what makes the folder a lake
                if table not in OPTIONAL_TABLES:
                    create_table(storage, table)
        except (OSError, DeltaError) as error:
            raise InputError(f"cannot create a lake at {path}: {_reason(error)}") from error
        return cls(storage)

    @staticmethod
    def check_usable(path: Path | str) -> None:
        """See that a lake is at ``path``, or could be made there; makes nothing.

        Raises:
            InputError: the folder holds something else, or cannot be used.
        """
        storage = open_storage(path)
        if is_lake(storage):
            return
        known = {*TABLES, "_tracer"}  # what an interrupted creation leaves
        try:
            names = [*storage.names(""), *storage.folders("")]
        except OSError as error:
            raise InputError(f"cannot use {path} as a lake: {_reason(error)}") from error
        if any(name not in known for name in names):
            raise InputError(
                f"{path} is not empty and not a trace lake",
                "give --lake a new or empty folder.",
            )

    def delta(self, table: str, *, create: bool = False) -> DeltaTable:
        """The Delta table at its newest version.

        Args:
            table: which.
            create: makes an optional table that no run had yet.

        Raises:
            DamagedDataError: its folder or log is gone or unreadable.
        """
        try:
            if create and self.is_absent(table):
                create_table(self.storage, table)
            return open_table(self.storage, table)
        except DeltaError as error:
            raise DamagedDataError(
                f"table {table} of {self.location} cannot be read: {first_line(error)}",
                "restore the folder from a copy.",
            ) from error

    def files(self, table: str, run_id: str | None = None) -> list[str]:
        """Locations of the files that make up a table now, of all runs or one.

        Files that another Delta tool rewrote lie outside the run's folder and may hold several
        runs; they are always among the answer. An optional table that no run had yet has none.

        Raises:
            DamagedDataError: a file the table names is gone.
        """
        files = self.of_whole_batches(table, self.named_files(table, run_id))
        try:
            gone = self.storage.missing([self.storage.name_of(file) for file in files])
        except OSError as error:
            raise InputError(f"cannot look into {self.location}: {_reason(error)}") from error
        if gone:
            file = self.storage.locate(gone[0])
            raise DamagedDataError(f"{file} is gone, though table {table} names it", RESTORE)
        return files

    def of_whole_batches(self, table: str, files: Sequence[str]) -> list[str]:
        """Without files of `usage_by_domain` whose batch is not in `requests` yet.

        Rows of other tables count by the request that they name; these name none, so while a
        batch is committed table by table, and after a crash in between, it would count here alone.
        """
        if table != "usage_by_domain" or not files:
            return list(files)
        last = self.last_batches()

        def is_whole(file: str) -> bool:
            batch = batch_of_sums(self.storage.name_of(file))
            # None: merged, or of another Delta tool. A share commits one batch after the other.
            if batch is None:
                return True
            if batch[1] <= last.get((batch[0], batch[1] // BATCHES_OF_A_SHARE), -1):
                return True
            try:
                version = self.delta("requests").transaction_version(batch_app_id(*batch))
            except DeltaError:  # another tool has tidied the log up meanwhile
                return True
            return version is not None

        return [file for file in files if is_whole(file)]

    def last_batches(self) -> dict[tuple[str, int], int]:
        """Number of the last batch by (run, share) whose file `requests` has, merged or not."""
        return last_batches(self.storage.name_of(file) for file in self.named_files("requests"))

    def dataset(self, table: str, files: Sequence[str]) -> ds.Dataset | None:
        """Some files of a table for those who cannot open them by their location; else None.

        Columns that are younger than a file are null in its rows.
        """
        if not files or not self.storage.is_remote:
            return None
        sources = [arrow_source(file) for file in files]
        return ds.dataset(
            [path for path, _ in sources],
            schema=arrow_schema(table),
            format="parquet",
            filesystem=sources[0][1],
        )

    def named_files(self, table: str, run_id: str | None = None) -> list[str]:
        """As ``files``, whether or not they are there, and of batches under way, too."""
        if self.is_absent(table):
            return []
        names = [file.path for file in named_files(self.delta(table))]
        if run_id is not None and table != "runs":
            names = [name for name in names if "/" not in name or name.startswith(f"{run_id}/")]
        return [self.storage.locate(f"{table}/{name}") for name in names]

    def is_absent(self, table: str) -> bool:
        """Whether the table is optional and no run had it yet."""
        return table in OPTIONAL_TABLES and not self.storage.has_folder(f"{table}/_delta_log")

    def add_columns(self) -> None:
        """Give tables that an older version made the columns that came since, all of them empty."""
        for table in TABLES:
            if not self.is_absent(table):
                add_columns(self.storage, table)

    def runs(self) -> list[dict[str, Any]]:
        """Rows of `runs`, oldest first."""
        try:
            rows: list[dict[str, Any]] = self.delta("runs").to_pyarrow_table().to_pylist()
        except (OSError, pa.ArrowException, DeltaError) as error:
            if is_outage(error):
                raise
            raise DamagedDataError(
                f"table runs of {self.location} cannot be read: {first_line(error)}", RESTORE
            ) from error
        empty = dict.fromkeys(arrow_schema("runs").names)  # of columns younger than the lake
        rows = [{**empty, **row} for row in rows]
        return sorted(rows, key=lambda row: (row["started_at"], row["run_id"]))

    def run(self, run_id: str | None = None) -> dict[str, Any]:
        """The row of one run; without a name, of the only run.

        Raises:
            UnknownRunError: no such run, or none named and not exactly one there.
        """
        rows = {row["run_id"]: row for row in self.runs()}
        if run_id is None and len(rows) == 1:
            return next(iter(rows.values()))
        if run_id is None or run_id not in rows:
            raise UnknownRunError(run_id, list(rows))
        return rows[run_id]

    def put_run(self, row: Mapping[str, Any]) -> None:
        """Insert or replace the row of ``row['run_id']``, atomically."""
        run_id = check_run_id(row["run_id"])
        table = pa.Table.from_pylist([dict(row)], schema=arrow_schema("runs"))
        wanted = table.to_pylist()

        def overwrite() -> None:
            if [known for known in self.runs() if known["run_id"] == run_id] != wanted:
                write_deltalake(
                    self.delta("runs"), table, mode="overwrite", predicate=f"run_id = '{run_id}'"
                )

        until_committed(self.storage, overwrite)

    def request_status(self, run_id: str) -> dict[str, str]:
        """Status by request id of every request of a run that is in the lake."""
        rows = self.rows("requests", run_id, ["request_id", "status"]).to_pydict()
        return dict(zip(rows["request_id"], rows["status"], strict=True))

    def rows(self, table: str, run_id: str, columns: Sequence[str]) -> pa.Table:
        """Some columns of a run's rows in a table, in memory.

        Raises:
            DamagedDataError: a file is gone or unreadable.
        """
        parts = [arrow_schema(table).empty_table().select(list(columns))]
        for path in self.files(table, run_id):
            with told_as_damage(path):
                parts.append(rows_of_run(table, path, run_id, columns))
        return pa.concat_tables(parts)

    def num_rows(self, table: str, run_id: str) -> int:
        """Rows of a run in a table; from the footer of a file that holds this run alone.

        Raises:
            DamagedDataError: a file is gone or unreadable.
        """
        total = 0
        for path in self.files(table, run_id):
            with told_as_damage(path):
                if self.storage.name_of(path).startswith(f"{table}/{run_id}/"):
                    total += read_footer(path).num_rows
                else:
                    total += rows_of_run(table, path, run_id, ["run_id"]).num_rows
        return total

    def writing(self, run_id: str) -> AbstractContextManager[Lock]:
        """Hold the run's write lock, and those of all its shares; they end with the process.

        Raises:
            LakeBusyError: another process holds one.
        """
        return holding_run(self.storage, check_run_id(run_id))

    def compacting(self, run_id: str) -> AbstractContextManager[Lock]:
        """Hold the lock of those who merge a run's files or take them away; writers do not ask.

        Raises:
            LakeBusyError: another process holds it.
        """
        return self.storage.locked(f"_tracer/locks/{check_run_id(run_id)}.compact-lock", run_id)


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or first_line(error)
