"""Runs a measure of the catalogue on a lake, with its chance level and its interval."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import polars as pl

from tracer.analysis.measures.catalogue import Measure, measure_named
from tracer.analysis.measures.checks import check_runs
from tracer.analysis.measures.draws import with_draws
from tracer.analysis.measures.engines import ENGINES, points_on
from tracer.analysis.measures.inputs import OTHER, Asked, frame_of, make_inputs
from tracer.analysis.measures.notes import draw_notes, notes_on
from tracer.analysis.sql import connect
from tracer.analysis.views import LakeFiles
from tracer.errors import InputError

__all__ = ["MeasureResult", "Settings", "run_measure"]


@dataclass(frozen=True, slots=True)
class Settings:
    """How a measure is taken.

    tokens: last-prompt, prompt, generated, or all
    domains: new domain by old domain or subject
    exclude_template: leaves out tokens that begin and end all prompts, as a chat template's do
    draws: of chance, and as many of requests for intervals; 0 has neither
    seed: of all draws and of the choice of requests
    level: of intervals and bands, such as 0.95
    requests: most requests to take; None takes all
    """

    tokens: str = "all"
    domains: Mapping[str, str] | None = None
    exclude_template: bool = False
    draws: int = 99
    seed: int = 0
    level: float = 0.95
    requests: int | None = None


@dataclass(frozen=True, slots=True)
class MeasureResult:
    """A measure of a run.

    frame: the measure's columns, behind each of its values those of chance and interval
    notes: what a reader of the numbers has to know about what they were made of
    num_requests: of each run, with tokens in the scope
    """

    measure: Measure
    frame: pl.DataFrame
    notes: tuple[str, ...]
    num_requests: tuple[int, ...]


def run_measure(
    lake: LakeFiles,
    name: str,
    *,
    run_id: str | None = None,
    other_run_id: str | None = None,
    settings: Settings | None = None,
    binds: Mapping[str, Any] | None = None,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
    engine: str = "duckdb",
    master: str | None = None,
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
        engine: one of ``ENGINES``; all but duckdb give points only, and take no draws.
        master: of Spark; None runs it in this process.

    Raises:
        MissingLibraryError: the engine is not installed.
        InputError: an unknown measure or option, nothing in the scope, a second run missing, too
            many or of another size, something the run did not record.
        UnknownRunError: no such run.
        DamagedDataError: a file of the lake is missing or broken.
    """
    settings = settings or Settings()
    if engine not in ENGINES:
        raise InputError(f"no engine {engine!r}", f"there are: {', '.join(ENGINES)}.")
    measure = measure_named(name)
    bound = measure.bound(dict(binds or {}))
    runs = [("", lake.run(run_id))]
    if other_run_id is not None:
        runs.append((OTHER, lake.run(other_run_id)))
    notes = check_runs(measure, [run for _, run in runs])
    if settings.exclude_template and (engine != "duckdb" or "phase_usage" in measure.reads):
        raise InputError(
            f"{measure.name} by {engine} is made of sums, which hold the template's tokens",
            "leave out --exclude-template, or take another measure by duckdb.",
        )
    if engine != "duckdb" and settings.draws:
        notes.append(f"{engine} takes the measure once, so there are no chance levels.")
        settings = replace(settings, draws=0)
    counts: list[int] = []
    con = connect(lake, None if measure.compares else str(runs[0][1]["run_id"]))
    try:
        for prefix, run in runs:
            asked = Asked(
                run,
                settings.tokens,
                settings.domains or {},
                settings.exclude_template,
                settings.requests,
                settings.seed,
            )
            keep = settings.draws > 0
            make_inputs(con, measure.reads, asked, prefix=prefix, keep=keep)
            notes += notes_on(con, asked, prefix)
            counts.append(len(con.table(f"{prefix}scoped_requests")))
        if engine == "duckdb":
            frame = with_draws(
                con,
                measure,
                bound,
                draws=settings.draws,
                seed=settings.seed,
                level=settings.level,
                progress=progress,
            )
            notes += draw_notes(measure, frame, settings.draws, settings.seed)
        else:
            names = [f"{p}{name}" for p, _ in runs for name in ("asked", "scoped_requests")]
            given = {name: frame_of(con, name) for name in names}
            frame = points_on(engine, lake, measure, bound, given, master=master)
    finally:
        con.close()
    return MeasureResult(measure, frame, tuple(notes), tuple(counts))
