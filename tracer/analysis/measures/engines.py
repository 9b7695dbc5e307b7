"""What engines other than DuckDB need to take a measure: files, relations, literals.

They give points, no draws. The requests that count are those that DuckDB found, so that all engines
agree on them; everything else an engine reads from the lake's files itself.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from tracer.analysis.measures.catalogue import Measure
from tracer.analysis.measures.inputs import OTHER, needed, renamed, tables_of
from tracer.analysis.sql import query_text, split_header
from tracer.analysis.views import LakeFiles

__all__ = ["ENGINES", "Points", "Relation", "points_on", "with_literals"]

ENGINES = ("duckdb", "polars", "spark")


@dataclass(frozen=True, slots=True)
class Relation:
    """A relation to be made: its name, and its text in the dialect of DuckDB.

    plain: the name in ``queries/inputs``, without ``OTHER``
    """

    name: str
    plain: str
    text: str


@dataclass(frozen=True, slots=True)
class Points:
    """Everything that an engine is given.

    files: of the lake's tables that are read, by table
    frames: relations that are there already: `asked`, `scoped_requests`, and those of a second run
    relations: to be made, in this order
    text: of the measure; its binds are literals
    """

    files: Mapping[str, Sequence[str]]
    frames: Mapping[str, pl.DataFrame]
    relations: Sequence[Relation]
    text: str


def points_on(
    engine: str,
    lake: LakeFiles,
    measure: Measure,
    binds: Mapping[str, Any],
    frames: Mapping[str, pl.DataFrame],
    *,
    master: str | None = None,
) -> pl.DataFrame:
    """Rows of a measure by another engine.

    Args:
        engine: polars or spark.
        lake: whose files are read.
        measure: what to take.
        binds: of all its options.
        frames: `asked` and `scoped_requests` of each run, by their full names.
        master: of Spark.

    Raises:
        InputError: the engine is not there, or cannot run the measure.
        MissingLibraryError: its library is not installed.
    """
    run_ids = [frame["run_id"][0] for name, frame in frames.items() if name.endswith("asked")]
    asked = Points(
        {table: _files(lake, table, run_ids) for table in tables_of(measure.reads)},
        frames,
        relations_of(measure, frames),
        with_literals(measure.sql, binds),
    )
    take: Callable[..., pl.DataFrame]
    if engine == "spark":
        from tracer.analysis.measures.spark import take

        return take(measure.name, asked, master=master)
    from tracer.analysis.measures.polars_engine import take

    return take(measure.name, asked)


def relations_of(measure: Measure, there: Iterable[str]) -> list[Relation]:
    """What is to be made for a measure, in order."""
    return [
        Relation(prefix + name, name, renamed(query_text(f"inputs/{name}"), prefix))
        for prefix in ("", *([OTHER] if measure.compares else []))
        for name in needed(measure.reads, prefix)
        if prefix + name not in there
    ]


def with_literals(text: str, binds: Mapping[str, Any]) -> str:
    """SQL with values in the places of ``$name``, without the comments at its top."""
    _, body = split_header(text)
    return re.sub(r"\$(\w+)", lambda match: _literal(binds[match[1]]), body)


def _literal(value: Any) -> str:
    match value:
        case float():
            return f"cast({value!r} as double)"
        case int():
            return str(value)
        case _:
            return "'" + str(value).replace("'", "''") + "'"


def _files(lake: LakeFiles, table: str, run_ids: Sequence[str]) -> list[str]:
    found = [file for run_id in run_ids for file in lake.files(table, run_id)]
    return list(dict.fromkeys(found))
