"""Runs a measure of the catalogue on a lake, with its chance level and its interval."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import duckdb
import numpy as np
import polars as pl

from tracer.analysis.measures.catalogue import Measure, measure_named
from tracer.analysis.measures.chance import aligned, chance_columns, interval_columns
from tracer.analysis.measures.inputs import OTHER, Asked, has_gate_weights, make_inputs
from tracer.analysis.measures.nulls import NULLS, Redraw, drawn_requests
from tracer.analysis.sql import connect, run_query
from tracer.analysis.views import LakeFiles
from tracer.errors import InputError

__all__ = ["MeasureResult", "Settings", "run_measure"]

_WEIGHTS = ("gate_weight", "weight_sum")
_SHAPE = {"num_experts": "experts per layer", "top_k": "top-k", "moe_layers": "MoE layers"}


@dataclass(frozen=True, slots=True)
class Settings:
    """How a measure is taken.

    tokens: last-prompt, prompt, generated, or all
    domains: new domain by old domain or subject
    draws: of chance, and as many of requests for intervals; 0 has neither
    seed: of all draws and of the choice of requests
    level: of intervals and bands, such as 0.95
    requests: most requests to take; None takes all
    """

    tokens: str = "all"
    domains: Mapping[str, str] | None = None
    draws: int = 99
    seed: int = 0
    level: float = 0.95
    requests: int | None = None


@dataclass(frozen=True, slots=True)
class MeasureResult:
    """frame: the measure's columns, behind each of its values those of chance and interval."""

    measure: Measure
    frame: pl.DataFrame
    notes: tuple[str, ...]


def run_measure(
    lake: LakeFiles,
    name: str,
    *,
    run_id: str | None = None,
    other_run_id: str | None = None,
    settings: Settings | None = None,
    binds: Mapping[str, Any] | None = None,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> MeasureResult:
    """Take the measure ``name`` of a run.

    Args:
        lake: the lake to read.
        name: of the measure.
        run_id: the run; None takes the only one.
        other_run_id: the second run, for measures that compare two.
        settings: tokens, domains, draws.
        binds: of the measure, by name.
        progress: told (done, total) draws.

    Raises:
        InputError: an unknown measure or option, nothing in the scope, a second run missing, too
            many or of another size, something the run did not record.
        UnknownRunError: no such run.
        DamagedDataError: a file of the lake is missing or broken.
    """
    settings = settings or Settings()
    measure = measure_named(name)
    bound = measure.bound(dict(binds or {}))
    compares = any(relation.startswith(OTHER) for relation in measure.reads)
    if compares != (other_run_id is not None):
        raise InputError(
            f"measure {name!r} compares two runs" if compares else f"{name!r} takes one run",
            "name the second with --other-run." if compares else "leave out --other-run.",
        )
    runs = [("", lake.run(run_id))]
    if other_run_id is not None:
        runs.append((OTHER, lake.run(other_run_id)))
    if not all(has_gate_weights(run) for _, run in runs) and any(
        word in measure.sql for word in _WEIGHTS
    ):
        raise InputError(
            f"measure {name!r} is made of gate weights, which the run's source did not have",
            "`tracer query` lists measures that count choices alone.",
        )
    notes = _compared(measure, runs[0][1], runs[1][1]) if compares else ()
    con = connect(lake, None if compares else str(runs[0][1]["run_id"]))
    try:
        for prefix, run in runs:
            asked = Asked(
                run, settings.tokens, settings.domains or {}, settings.requests, settings.seed
            )
            keep = settings.draws > 0
            make_inputs(con, measure.reads, asked, prefix=prefix, keep=keep)
        frame = _with_draws(con, measure, bound, settings, progress)
    finally:
        con.close()
    return MeasureResult(measure, frame, notes)


def _compared(
    measure: Measure, run: Mapping[str, object], other: Mapping[str, object]
) -> tuple[str, ...]:
    """Refuses runs whose experts cannot be those of one model; notes names that differ.

    A measure that reads the second run's `model` copes with another size: it compares no ids.
    """
    if f"{OTHER}model" in measure.reads:
        return ()
    for name, words in _SHAPE.items():
        if run[name] != other[name]:
            raise InputError(
                f"the runs differ in {words}: {run[name]} and {other[name]}",
                f"measure {measure.name!r} compares expert by expert: take runs of one model.",
            )
    if run["model"] == other["model"]:
        return ()
    note = "expert ids mean the same only in checkpoints or variants of one model"
    return (f"The runs name two models, {run['model']} and {other['model']}: {note}.",)


def _with_draws(
    con: duckdb.DuckDBPyConnection,
    measure: Measure,
    binds: dict[str, Any],
    settings: Settings,
    progress: Callable[[int, int], None],
) -> pl.DataFrame:
    def taken() -> pl.DataFrame:
        return run_query(con, f"measures/{measure.name}", **binds)

    observed = taken()
    if not settings.draws or not measure.values or observed.is_empty():
        return observed
    draws: list[Callable[[Redraw, np.random.Generator], None]] = [drawn_requests]
    if measure.null is not None:
        draws.insert(0, NULLS[measure.null])
    redraw = Redraw(con, measure.reads)
    total, done = settings.draws * len(draws), 0
    found: list[dict[str, list[np.ndarray]]] = []
    for number, draw in enumerate(draws):
        rng = np.random.default_rng([settings.seed, number])
        values: dict[str, list[np.ndarray]] = {value: [] for value in measure.values}
        for _ in range(settings.draws):
            draw(redraw, rng)
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
            columns |= interval_columns(column, np.array(found[-1][column]), settings.level)
            if measure.null is not None:
                drawn = np.array(found[0][column])
                columns |= chance_columns(column, seen, drawn, settings.level)
    return pl.DataFrame(columns)
