"""Takes a measure as recorded, of relations drawn at random, and of requests drawn anew."""

from collections.abc import Callable, Sequence
from typing import Any

import duckdb
import numpy as np
import polars as pl

from tracer.analysis.measures.catalogue import Measure
from tracer.analysis.measures.chance import aligned, chance_columns, interval_columns
from tracer.analysis.measures.inputs import frame_of
from tracer.analysis.measures.nulls import NULLS
from tracer.analysis.measures.redraw import Redraw, drawn_requests
from tracer.analysis.measures.widths import row_widening
from tracer.analysis.sql import run_query

__all__ = ["with_draws"]

Draw = Callable[[Redraw, np.random.Generator], None]


def with_draws(
    con: duckdb.DuckDBPyConnection,
    measure: Measure,
    binds: dict[str, Any],
    *,
    draws: int,
    seed: int,
    level: float,
    progress: Callable[[int, int], None],
) -> pl.DataFrame:
    """Rows of a measure, behind each of its values the columns of chance and interval.

    Args:
        con: with the relations that the measure reads, held in memory if there are draws.
        measure: what to take.
        binds: of all its options.
        draws: of chance, and as many of requests; 0 has neither.
        seed: of all draws.
        level: of bands and intervals.
        progress: told (done, total) draws.
    """
    observed = _taken(con, measure, binds)
    if not draws or not measure.values:
        return observed
    kinds: list[Draw] = [drawn_requests]
    if measure.null is not None:
        kinds.insert(0, NULLS[measure.null])
    # A result without rows has the columns, too.
    found = [{value: [np.empty(0)] for value in measure.values} for _ in kinds]
    if not observed.is_empty():
        redraw = Redraw(con)
        for number, draw in enumerate(kinds):
            found[number] = {value: [] for value in measure.values}
            rng = np.random.default_rng([seed, number])
            for done in range(draws):
                draw(redraw, rng)
                redraw.count_again()
                again = _taken(con, measure, binds)
                for value, arrays in found[number].items():
                    arrays.append(aligned(observed, measure.key, again, value))
                progress(number * draws + done + 1, draws * len(kinds))
            redraw.restore()
    requests = frame_of(con, "scoped_requests")
    widened = row_widening(observed, measure.key, requests, level)
    return _with_columns(observed, measure, found, level, widened)


def _taken(con: duckdb.DuckDBPyConnection, measure: Measure, binds: dict[str, Any]) -> pl.DataFrame:
    return run_query(con, f"measures/{measure.name}", **binds)


def _with_columns(
    observed: pl.DataFrame,
    measure: Measure,
    found: Sequence[dict[str, list[np.ndarray]]],
    level: float,
    widened: np.ndarray,
) -> pl.DataFrame:
    """Adds what the draws say; ``found``: of the null, if there is one, and of new requests."""
    columns: dict[str, np.ndarray | pl.Series] = {}
    for column in observed.columns:
        columns[column] = observed[column]
        if column in measure.values:
            seen = observed[column].cast(pl.Float64).fill_null(np.nan).to_numpy()
            columns |= interval_columns(
                column,
                seen,
                np.array(found[-1][column]),
                level,
                widened=widened,
                bounds=measure.bounds_of(column),
            )
            if measure.null is not None:
                drawn = np.array(found[0][column])
                columns |= chance_columns(column, seen, drawn, level)
    return pl.DataFrame(columns)
