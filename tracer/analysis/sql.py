"""The only door to SQL: a DuckDB connection with the lake's tables as views, and named queries.

A connection reads files below the lake and nothing else: other paths, extensions, Python
variables and changes of these settings are refused.
"""

import os
import re
import tempfile
from pathlib import Path

import duckdb
import polars as pl

from tracer.analysis.views import LakeFiles, defused, quoted, view_statements
from tracer.errors import InputError, QueryError
from tracer.schema import query_path

__all__ = ["connect", "empty_connection", "query_names", "query_text", "run_query", "run_sql"]

_NAME = re.compile(r"[a-z0-9_]+(/[a-z0-9_]+)?")
_READING = {"SELECT", "EXPLAIN"}


def empty_connection() -> duckdb.DuckDBPyConnection:
    """An in-memory database without views that loads no extension and sees no Python variable."""
    con = duckdb.connect(":memory:")
    spill = str(Path(tempfile.gettempdir()) / f"moe-tracer-{os.getpid()}")
    for setting in (
        "timezone = 'UTC'",
        f"temp_directory = {quoted(spill)}",  # the default is the working directory
        "enable_progress_bar = false",
        "python_enable_replacements = false",
        "autoinstall_known_extensions = false",
        "autoload_known_extensions = false",
    ):
        con.execute(f"set {setting}")
    return con


def connect(lake: LakeFiles, run_id: str | None = None) -> duckdb.DuckDBPyConnection:
    """An in-memory database with the views of ``lake``, closed to everything outside it.

    Args:
        lake: the lake to read.
        run_id: opens the files of this run only.

    Raises:
        QueryError: a file of the lake cannot be read.
    """
    con = empty_connection()
    try:
        for statement in view_statements(lake, run_id).values():
            con.execute(statement)
        root = f"{lake.path}{os.sep}"
        allowed = ", ".join(map(quoted, {root, defused(root)}))  # views name files by pattern
        con.execute(f"set allowed_directories = [{allowed}]")
        con.execute("set enable_external_access = false")
        con.execute("set lock_configuration = true")
    except duckdb.Error as error:
        con.close()
        raise _query_error(error) from error
    return con


def query_names() -> list[str]:
    """Names of the queries a user can run on a lake: the files directly in ``queries/``."""
    return sorted(path.stem for path in query_path("any").parent.glob("*.sql"))


def query_text(name: str) -> str:
    """Text of ``queries/<name>.sql``; ``audit/<name>`` reaches the steps of the audit.

    Raises:
        InputError: there is no such query.
    """
    path = query_path(name)
    if not _NAME.fullmatch(name) or not path.is_file():
        raise InputError(f"no query {name!r}", f"there are: {', '.join(query_names())}.")
    return path.read_text(encoding="utf-8")


def run_query(con: duckdb.DuckDBPyConnection, name: str, **binds: object) -> pl.DataFrame:
    """Run ``queries/<name>.sql``; ``binds`` fill its ``$name`` placeholders.

    Raises:
        InputError: there is no such query.
        QueryError: DuckDB refuses, for one because a bind is missing.
    """
    text = query_text(name)
    try:
        frame: pl.DataFrame = con.sql(text, params=binds).pl()
    except duckdb.Error as error:
        raise _query_error(error) from error
    return frame


def run_sql(con: duckdb.DuckDBPyConnection, text: str) -> pl.DataFrame:
    """Run one statement of the user's own that reads (select, from, with, describe, explain).

    Raises:
        QueryError: DuckDB refuses it, or it would write.
    """
    try:
        statements = con.extract_statements(text)
        if len(statements) != 1 or statements[0].type.name not in _READING:
            raise QueryError("only a single statement that reads is run", "begin with select.")
        frame: pl.DataFrame = con.sql(text).pl()
    except duckdb.Error as error:
        raise _query_error(error) from error
    return frame


def _query_error(error: duckdb.Error) -> QueryError:
    """First line of DuckDB's message as the fact, its suggestion, if any, as the hint."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    hint = next((line for line in lines[1:] if line.startswith("Did you mean")), None)
    return QueryError(lines[0] if lines else type(error).__name__, hint)
