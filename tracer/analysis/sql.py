"""The only door to SQL: a DuckDB connection with the lake's tables as views, and named queries.

A connection reads files below the lake and nothing else: other paths, extensions, Python
variables and changes of these settings are refused.
"""

import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any, cast

import duckdb
import polars as pl

from tracer.analysis.views import LakeFiles, defused, quoted, undefused, views_of
from tracer.errors import DamagedDataError, InputError, QueryError, TracerError, first_line
from tracer.schema import query_path

__all__ = [
    "connect",
    "empty_connection",
    "query_batches",
    "query_names",
    "query_text",
    "run_query",
    "run_sql",
    "split_header",
    "text_batches",
]

_NAME = re.compile(r"[a-z0-9_]+(/[a-z0-9_]+){0,2}")
_PARTS = re.compile(r"^-- parts +(.+)$", re.MULTILINE)
_READING = {"SELECT", "EXPLAIN"}
_NOT_IN_POLARS = {"interval", "union"}
_PARQUET = re.compile(r"'((?:[^']|'')+\.parquet)'")  # a file in the text of a view
# What fails on a damaged file: reading its footer, then, slow, every value.
_PROBES = (
    "from parquet_file_metadata(?)",
    "select bit_xor(hash(file)) from read_parquet(?, hive_partitioning = false) as file",
)


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
        DamagedDataError: a file of the lake is missing or broken.
        QueryError: a file of the lake cannot be read for another reason.
    """
    views = views_of(lake, run_id)
    con = empty_connection()
    try:
        for name, dataset in views.datasets.items():
            con.register(name, dataset)
        for view in views.statements.values():
            con.execute(view)
        root = f"{lake.location}/"
        allowed = ", ".join(map(quoted, {root, defused(root)}))  # views name files by pattern
        con.execute(f"set allowed_directories = [{allowed}]")
        con.execute("set enable_external_access = false")
        con.execute("set lock_configuration = true")
    except duckdb.Error as error:
        told = _told(con, error, views.statements.values())
        con.close()
        raise told from error
    return con


def query_names() -> list[str]:
    """Names of the queries a user can run on a lake: the files directly in ``queries/``."""
    return sorted(path.stem for path in query_path("any").parent.glob("*.sql"))


def query_text(name: str) -> str:
    """Text of ``queries/<name>.sql``; ``audit/<name>`` reaches the steps of the audit.

    Its `with` begins with the steps of ``queries/parts`` that a line `-- parts  one, another` of
    its header names.

    Raises:
        InputError: there is no such query, or no such part.
    """
    path = query_path(name)
    if not _NAME.fullmatch(name) or not path.is_file():
        raise InputError(f"no query {name!r}", f"there are: {', '.join(query_names())}.")
    text = path.read_text(encoding="utf-8")
    named = _PARTS.search(text)
    if named is None:
        return text
    header, body = split_header(text)
    parts = [split_header(query_text(f"parts/{part}")) for part in named[1].split(", ")]
    steps = ",\n".join(f"{lines[0]}\n{step.rstrip()}" for lines, step in parts)
    own = f",\n{body.removeprefix('with ')}" if body.startswith("with ") else f"\n{body}"
    return "\n".join([*header, "with", steps]) + own


def split_header(text: str) -> tuple[list[str], str]:
    """The lines of comments at the top of SQL, and what comes behind them."""
    header = list(takewhile(lambda line: line.startswith("--"), text.splitlines()))
    return header, "\n".join(text.splitlines()[len(header) :]) + "\n"


def run_query(con: duckdb.DuckDBPyConnection, name: str, **binds: object) -> pl.DataFrame:
    """Run ``queries/<name>.sql``; ``binds`` fill its ``$name`` placeholders.

    Raises:
        InputError: there is no such query.
        DamagedDataError: a file of the lake is missing or broken.
        QueryError: DuckDB refuses, for one because a bind is missing.
    """
    text = query_text(name)
    try:
        frame: pl.DataFrame = con.sql(text, params=binds).pl()
    except duckdb.Error as error:
        raise _told(con, error, _views(con)) from error
    return frame


def query_batches(
    con: duckdb.DuckDBPyConnection, name: str, rows: int, **binds: object
) -> Iterator[pl.DataFrame]:
    """As ``run_query``, about ``rows`` rows at a time; read it to its end before another query.

    Raises:
        InputError: there is no such query.
        DamagedDataError: a file of the lake is missing or broken.
        QueryError: DuckDB refuses, for one because a bind is missing.
    """
    yield from text_batches(con, query_text(name), rows, **binds)


def text_batches(
    con: duckdb.DuckDBPyConnection, text: str, rows: int, **binds: object
) -> Iterator[pl.DataFrame]:
    """As ``query_batches``, of a text.

    Raises:
        DamagedDataError: a file of the lake is missing or broken.
        QueryError: DuckDB refuses, for one because a bind is missing.
    """
    try:
        for batch in con.sql(text, params=binds).arrow(rows):
            yield cast("pl.DataFrame", pl.from_arrow(batch))
    except duckdb.Error as error:
        raise _told(con, error, _views(con)) from error


def run_sql(con: duckdb.DuckDBPyConnection, text: str) -> pl.DataFrame:
    """Run one statement of the user's own that reads (select, from, with, describe, explain).

    Raises:
        DamagedDataError: a file of the lake is missing or broken.
        QueryError: DuckDB refuses it, it would write, or a column has a type no frame can hold.
    """
    try:
        statements = con.extract_statements(text)
        if len(statements) != 1 or statements[0].type.name not in _READING:
            raise QueryError("only a single statement that reads is run", "begin with select.")
        found = con.sql(text)
        for column, kind in zip(found.columns, found.types, strict=True):
            if _leaves(kind) & _NOT_IN_POLARS:
                raise QueryError(
                    f"column {column!r} is of type {kind}, which cannot be shown",
                    "cast it in the query: <column>::varchar.",
                )
        frame: pl.DataFrame = found.pl()
    except duckdb.Error as error:
        raise _told(con, error, _views(con), text) from error
    return frame


def _leaves(kind: Any) -> set[str]:
    """A DuckDB type and the types inside it, by name."""
    if kind.id not in {"list", "array", "struct", "map", "union"}:
        return {kind.id}
    inner = (part for _, part in kind.children if isinstance(part, type(kind)))
    return {kind.id}.union(*map(_leaves, inner))


def _views(con: duckdb.DuckDBPyConnection) -> list[str]:
    return [sql for (sql,) in con.execute("select sql from duckdb_views()").fetchall()]


def _told(
    con: duckdb.DuckDBPyConnection, error: duckdb.Error, views: Iterable[str], text: str = ""
) -> TracerError:
    """A damaged file below the views, if that is what ended ``text``; else DuckDB's own words.

    Those are the first line of its message as the fact, its suggestion, if any, as the hint.
    """
    patterns = [name.replace("''", "'") for view in views for name in _PARQUET.findall(view)]
    file = _damaged_file(con, error, patterns)
    if file and file not in text:  # not one that the user's own query names
        return DamagedDataError(
            f"the lake file {file} cannot be read: {first_line(error)}",
            "restore the file from a copy, or record the run again under another --run-id.",
        )
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    hint = next((line for line in lines[1:] if line.startswith("Did you mean")), None)
    return QueryError(first_line(error), hint)


def _damaged_file(
    con: duckdb.DuckDBPyConnection, error: duckdb.Error, patterns: Sequence[str]
) -> str | None:
    """Which of the files ``error`` is about."""
    found: str | None = None
    message = str(error)
    if isinstance(error, duckdb.IOException | duckdb.InvalidInputException):
        if "Permission denied" not in message:
            names = {spelt: p for p in patterns for spelt in (p, undefused(p))}
            found = next((names[spelt] for spelt in names if spelt in message), None)
    elif type(error) is duckdb.Error:  # of Parquet that makes no sense; its file is not named
        found = next((p for probe in _PROBES for p in patterns if not _runs(con, probe, p)), None)
    return found and undefused(found)


def _runs(con: duckdb.DuckDBPyConnection, query: str, *binds: object) -> bool:
    try:
        con.execute(query, binds)
    except duckdb.Error:
        return False
    return True
