"""The tables of a lake as DuckDB views: one statement per view, over the live files only.

Only the Delta log knows which Parquet files count, so every view names its files one by one. The
long form of `routing`, `choices`, is the one view that unnests a list; its text is
``queries/views/choices.sql``.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from tracer.schema import TABLES, query_path, table_schema

__all__ = [
    "LakeFiles",
    "Views",
    "defused",
    "quoted",
    "undefused",
    "views_of",
]

_TYPES = {
    "string": "varchar",
    "bool": "boolean",
    "int16": "smallint",
    "int32": "integer",
    "int64": "bigint",
    "float32": "float",
    "float64": "double",
    "timestamp": "timestamptz",
}
_NESTED = re.compile(r"(list|map)<(.+)>")


class LakeFiles(Protocol):
    """What analysis needs of a lake; ``tracer.store.lake.Lake`` is one."""

    @property
    def location(self) -> str:
        """Its folder or URL."""
        ...

    def files(self, table: str, run_id: str | None = None) -> list[str]:
        """Locations of the Parquet files that make up a table now, of all runs or one."""
        ...

    def dataset(self, table: str, files: Sequence[str]) -> Any:
        """Some files as an Arrow dataset where DuckDB cannot open them by itself; else None."""
        ...

    def run(self, run_id: str | None = None) -> dict[str, object]:
        """The row of one run in `runs`; without a name, of the only run."""
        ...


@dataclass(frozen=True, slots=True)
class Views:
    """What makes the tables of a lake visible.

    statements: ``create or replace view`` by view name, in the order they must be run
    datasets: what they read beside files, by the names to register them under
    """

    statements: dict[str, str]
    datasets: dict[str, Any]


def views_of(lake: LakeFiles, run_id: str | None = None, *, files_only: bool = False) -> Views:
    """The views of a lake as it is now.

    Args:
        lake: the lake to read.
        run_id: reads the files of this run only; `runs` still lists every run.
        files_only: for another DuckDB, which opens every file by its location.
    """
    views = Views({}, {})
    for table in TABLES:
        files = lake.files(table, run_id)
        dataset = None if files_only else lake.dataset(table, files)
        if dataset is not None:
            source = f"files_of_{table}"
            views.datasets[source] = dataset
            select = f"select {_names(table)} from {source}"  # noqa: S608
        else:
            select = _select(table, files)
        views.statements[table] = f"create or replace view {table} as {select}"
    choices = query_path("views/choices").read_text(encoding="utf-8")
    views.statements["choices"] = f"create or replace view choices as\n{choices}"
    return views


def _select(table: str, files: list[str]) -> str:
    columns = table_schema(table).columns
    nulls = ", ".join(f'null::{_duckdb_type(c.type)} as "{c.name}"' for c in columns)
    empty = f"select {nulls} where false"
    if not files:
        return empty
    names = _names(table)
    paths = ", ".join(quoted(defused(file)) for file in files)  # DuckDB expands globs
    if any(column.nullable for column in columns):
        # Such a column may be younger than some of the files, which then do not have it.
        rows = f"from read_parquet([{paths}], hive_partitioning = false, union_by_name = true)"
        return f"select {names} from ({empty} union all by name {rows})"  # noqa: S608
    # Folders named like `domain=law` above a lake would otherwise replace the column.
    return f"select {names} from read_parquet([{paths}], hive_partitioning = false)"  # noqa: S608


def _names(table: str) -> str:
    return ", ".join(f'"{column.name}"' for column in table_schema(table).columns)


def _duckdb_type(name: str) -> str:
    """DuckDB's name of a type of ``schemas/*.toml``."""
    if not (nested := _NESTED.fullmatch(name)):
        return _TYPES[name]
    inner = [_TYPES[part] for part in nested[2].split(",")]
    return f"{inner[0]}[]" if nested[1] == "list" else f"map({', '.join(inner)})"


def defused(path: str) -> str:
    """A path as a glob pattern that matches this path only."""
    return re.sub(r"([*?\[])", r"[\1]", path)


def undefused(pattern: str) -> str:
    """The path of a pattern made by ``defused``."""
    return re.sub(r"\[([*?\[])\]", r"\1", pattern)


def quoted(text: str) -> str:
    """A text as an SQL string."""
    return "'" + text.replace("'", "''") + "'"
