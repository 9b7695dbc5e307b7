"""Takes a measure as recorded, of relations drawn at random, and of requests drawn anew."""

from collections.abc import Callable
from typing import Any

import duckdb
import numpy as np
import polars as pl

from tracer.analysis.measures.catalogue import Measure
from tracer.analysis.measures.chance import aligned, chance_columns, interval_columns
from tracer.analysis.measures.nulls import NULLS
from tracer.analysis.measures.redraw import Redraw, drawn_requests
from tracer.analysis.sql import run_query

__all__ = ["with_draws"]


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

    def taken() -> pl.DataFrame:
        return run_query(con, f"measures/{measure.name}", **binds)

    observed = taken()
    if not draws or not measure.values or observed.is_empty():
        return observed
    kinds: list[Callable[[Redraw, np.random.Generator], None]] = [drawn_requests]
    if measure.null is not None:
        kinds.insert(0, NULLS[measure.null])
    redraw = Redraw(con)
    total, done = draws * len(kinds), 0
    found: list[dict[str, list[np.ndarray]]] = []
    for number, draw in enumerate(kinds):
        rng = np.random.default_rng([seed, number])
        values: dict[str, list[np.ndarray]] = {value: [] for value in measure.values}
        for _ in range(draws):
            draw(redraw, rng)
            redraw.count_again()
            again = taken()
            for value, arrays in values.items():
                arrays.append(aligned(observed, measure.key, again, value))
            done += 1
            progress(done, total)
        redraw.restore()
        found.append(values)
    columns: dict[str, np.ndarray | pl.Series] = {}
    for column in observed.columns:
        columns[column] = observed[column]
        if column in measure.values:
            seen = observed[column].cast(pl.Float64).fill_null(np.nan).to_numpy()
            columns |= interval_columns(column, np.array(found[-1][column]), level)
            if measure.null is not None:
                drawn = np.array(found[0][column])
                columns |= chance_columns(column, seen, drawn, level)
    return pl.DataFrame(columns)
