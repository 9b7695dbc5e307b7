"""The trace lake: a folder of Delta tables, opened, created, listed and written to.

Each table is a Delta table of plain Parquet files, so Spark, Trino, Polars and DuckDB read it
without us. A lake is recognised by the Delta log of its `runs` table.
"""

import datetime
import fcntl
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import CommitFailedError

from tracer.errors import InputError, LakeBusyError, NotALakeError, UnknownRunError
from tracer.schema import TABLES, arrow_schema

__all__ = ["Lake", "check_run_id", "utc_now"]

SCHEMA_VERSION = "1"
_VERSION_KEY = "moe_tracer.schema_version"
_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,119}")
_COMMIT_TRIES = 20


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

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def open(cls, path: Path | str) -> "Lake":
        """Open the lake at ``path``.

        Raises:
            NotALakeError: nothing there, or something else.
            InputError: a lake of another schema version, or a path delta-rs cannot work in.
        """
        root = _absolute(path)
        if not (root / "runs" / "_delta_log").is_dir():
            raise NotALakeError(path)
        lake = cls(root)
        version = lake.delta("runs").metadata().configuration.get(_VERSION_KEY)
        if version != SCHEMA_VERSION:
            raise InputError(
                f"{path} has lake schema version {version or 'unknown'},"
                f" this program reads version {SCHEMA_VERSION}",
                "use the moe-tracer version that wrote it.",
            )
        return lake

    @classmethod
    def create(cls, path: Path | str) -> "Lake":
        """Open the lake at ``path``, or make one in a new or empty folder.

        Raises:
            InputError: the folder holds something else, or cannot be made.
        """
        root = _absolute(path)
        if (root / "runs" / "_delta_log").is_dir():
            return cls.open(path)
        known = {*TABLES, "_tracer"}  # what an interrupted creation leaves
        try:
            foreign = [p.name for p in root.iterdir() if p.name not in known]
        except FileNotFoundError:
            foreign = []
        except OSError as error:
            raise InputError(f"cannot use {path} as a lake: {error.strerror}") from error
        if foreign:
            raise InputError(
                f"{path} is not empty and not a trace lake",
                "give --lake a new or empty folder.",
            )
        try:
            for table in reversed(TABLES):  # runs last: it is what makes the folder a lake
                DeltaTable.create(
                    str(root / table),
                    arrow_schema(table),
                    mode="ignore",
                    configuration={_VERSION_KEY: SCHEMA_VERSION},
                    raise_if_key_not_exists=False,
                )
        except OSError as error:
            raise InputError(f"cannot create a lake at {path}: {error}") from error
        return cls(root)

    def delta(self, table: str) -> DeltaTable:
        """The Delta table at its newest version."""
        return DeltaTable(str(self.path / table))

    def files(self, table: str, run_id: str | None = None) -> list[str]:
        """Absolute paths of the files that make up a table now, of all runs or one."""
        paths = [self.path / table / name for name in _live_files(self.delta(table))]
        if run_id is not None and table != "runs":
            paths = [path for path in paths if path.parent.name == run_id]
        return sorted(map(str, paths))

    def runs(self) -> list[dict[str, Any]]:
        """Rows of `runs`, oldest first."""
        rows: list[dict[str, Any]] = self.delta("runs").to_pyarrow_table().to_pylist()
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
        for attempt in range(_COMMIT_TRIES):
            try:
                write_deltalake(
                    self.delta("runs"), table, mode="overwrite", predicate=f"run_id = '{run_id}'"
                )
            except CommitFailedError:  # another run's row landed in between
                if attempt == _COMMIT_TRIES - 1:
                    raise
            else:
                return

    def request_status(self, run_id: str) -> dict[str, str]:
        """Status by request id of every request of a run that is in the lake."""
        import pyarrow.parquet as pq

        status: dict[str, str] = {}
        for path in self.files("requests", run_id):
            columns = pq.read_table(path, columns=["request_id", "status"]).to_pydict()
            status.update(zip(columns["request_id"], columns["status"], strict=True))
        return status

    @contextmanager
    def writing(self, run_id: str) -> Iterator[None]:
        """Hold the run's write lock; the system releases it when the process ends.

        Raises:
            LakeBusyError: another process holds it.
        """
        folder = self.path / "_tracer" / "locks"
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / f"{check_run_id(run_id)}.lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise LakeBusyError(run_id) from None
            yield


def _absolute(path: Path | str) -> Path:
    """The lake's folder, if delta-rs can work in it."""
    root = Path(path).absolute()
    if bad := sorted(set(str(root)) & set("%[]")):
        raise InputError(
            f"{path} cannot be a lake: its full path contains {' '.join(bad)}",
            "use a folder without '%', '[' and ']'.",
        )
    return root


def _live_files(table: DeltaTable) -> list[str]:
    """Paths relative to the table, as its log names them now."""
    names: list[str] = pa.table(table.get_add_actions(flatten=True))["path"].to_pylist()
    return [unquote(name) for name in names]
