"""The tables of a lake as DuckDB views: one statement per view, over the live files only.

Only the Delta log knows which Parquet files count, so every view names its files one by one. The
long form of `routing`, `choices`, is the one view that unnests a list; its text is
``queries/views/choices.sql``.
"""

import re
from pathlib import Path
from typing import Protocol

from tracer.schema import TABLES, query_path, table_schema

__all__ = ["LakeFiles", "defused", "quoted", "undefused", "view_statements"]

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

    path: Path

    def files(self, table: str, run_id: str | None = None) -> list[str]:
        """Absolute paths of the Parquet files that make up a table now, of all runs or one."""
        ...

    def run(self, run_id: str | None = None) -> dict[str, object]:
        """The row of one run in `runs`; without a name, of the only run."""
        ...


def view_statements(lake: LakeFiles, run_id: str | None = None) -> dict[str, str]:
    """``create or replace view`` statement by view name, in the order they must be run.

    Args:
        lake: the lake to read.
        run_id: reads the files of this run only; `runs` still lists every run.
    """
    statements = {table: _table_view(table, lake.files(table, run_id)) for table in TABLES}
    choices = query_path("views/choices").read_text(encoding="utf-8")
    statements["choices"] = f"create or replace view choices as\n{choices}"
    return statements


def _table_view(table: str, files: list[str]) -> str:
    columns = table_schema(table).columns
    nulls = ", ".join(f'null::{_duckdb_type(c.type)} as "{c.name}"' for c in columns)
    empty = f"select {nulls} where false"
    if files:
        names = ", ".join(f'"{column.name}"' for column in columns)
        paths = ", ".join(quoted(defused(file)) for file in files)  # DuckDB expands globs
        # Folders named like `domain=law` above a lake would otherwise replace the column.
        source = f"select {names} from read_parquet([{paths}], hive_partitioning = false)"  # noqa: S608
        if any(column.nullable for column in columns):
            # Such a column may be younger than some of the files, which then do not have it.
            rows = f"from read_parquet([{paths}], hive_partitioning = false, union_by_name = true)"
            source = f"select {names} from ({empty} union all by name {rows})"  # noqa: S608
    else:
        source = empty
    return f"create or replace view {table} as {source}"


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
