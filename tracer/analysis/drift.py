"""A run beside an earlier one: whether any measure of the two went beyond its limit."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import polars as pl

from tracer.analysis.measures.catalogue import measure_named
from tracer.analysis.measures.run import MeasureResult, Settings, run_measure
from tracer.analysis.views import LakeFiles
from tracer.errors import InputError

__all__ = ["Drift", "DriftCheck", "DriftLimit", "check_limits", "compare_runs"]

_MOST_ROWS = 20
# Columns of `runs` that say how a run was made, and whether their values fit into a sentence.
_SHORT = ("engine", "engine_version", "dataset", "max_tokens", "weight_precision")
_LONG = ("model_revision", "dataset_digest", "options")
# Nulls in which nothing differs between the runs. Others say how much two runs have in common that
# have nothing to do with each other, which explains no drift.
_NO_DRIFT = ("runs", "one_model")


@dataclass(frozen=True, slots=True)
class DriftLimit:
    """How far a column of a measure of two runs may go.

    low, high: None does not limit that side
    absolute: ``high`` is of the column's absolute value
    """

    measure: str
    column: str
    low: float | None
    high: float | None
    absolute: bool = False

    @property
    def words(self) -> str:
        """What the limit says."""
        parts = [f"at least {self.low:g}"] if self.low is not None else []
        if self.high is not None:
            parts.append(f"at most {'±' if self.absolute else ''}{self.high:g}")
        return " and ".join(parts)


@dataclass(frozen=True, slots=True)
class DriftCheck:
    """One limit of two runs.

    num_rows: that have a value; num_beyond: whose value lies beyond the limit; num_breaches: of
        these, what chance does not explain
    rows: those nearest to the limit or farthest beyond first, 20 at most: the measure's key,
        `value`, and where there were draws `low`, `high` (requests drawn anew), `chance_low`,
        `chance_high`, `p_adjusted`; and `breach`
    """

    measure: str
    column: str
    limit: str
    num_rows: int
    num_beyond: int
    num_breaches: int
    rows: tuple[dict[str, Any], ...]

    @property
    def words(self) -> str:
        """What was found, in one line."""
        first = self.rows[0]
        key = " ".join(
            f"{name.removesuffix('_id')} {value}"
            for name, value in first.items()
            if name not in _NUMBERS
        )
        return (
            f"{self.measure}.{self.column} ({self.limit}): {self.num_breaches} of"
            f" {self.num_rows} rows beyond it, first {key} with {first['value']:.4g}"
        )


_NUMBERS = ("value", "low", "high", "chance_low", "chance_high", "p_adjusted", "breach")


@dataclass(frozen=True, slots=True)
class Drift:
    """A run beside an earlier one; changes are the run's less the earlier one's.

    notes: what a reader has to know of what was compared
    """

    run_id: str
    against: str
    alpha: float | None
    draws: int
    level: float
    checks: tuple[DriftCheck, ...]
    notes: tuple[str, ...]

    @property
    def breaches(self) -> list[DriftCheck]:
        """Checks that were not met."""
        return [check for check in self.checks if check.num_breaches]

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


def check_limits(limits: Sequence[DriftLimit]) -> None:
    """See that every limit is of a column with numbers of a measure of two runs.

    Raises:
        InputError: one is not.
    """
    for limit in limits:
        measure = measure_named(limit.measure)
        if not measure.compares:
            raise InputError(
                f"measure {limit.measure!r} is of one run, so it knows no drift",
                "`tracer query --help` lists the measures; those of two runs read `other_`.",
            )
        columns = [c.name for c in measure.columns if c.name not in measure.key]
        if limit.column not in columns:
            raise InputError(
                f"measure {limit.measure!r} has no column {limit.column!r}",
                f"there are: {', '.join(columns)}.",
            )


def compare_runs(
    lake: LakeFiles,
    run_id: str,
    against: str,
    limits: Sequence[DriftLimit],
    *,
    alpha: float | None,
    settings: Settings,
    progress: Callable[[str], None] = lambda _measure: None,
) -> Drift:
    """Hold two runs of one model to limits.

    A limit is broken where a value lies beyond it, farther out than chance gives, and its
    probability by chance, corrected over all rows of the measure (single-step max-T), is at most
    ``alpha``. A column without chance levels is judged by its limit alone, and so are those whose
    chance is not that of two runs that do not differ (`router_saturation`), and a value that has
    no probability because every draw of chance repeats it.

    Args:
        lake: the lake to read.
        run_id: the run.
        against: the earlier one.
        limits: what is checked.
        alpha: None lets every value beyond its limit count.
        settings: tokens, domains and draws of the measures.
        progress: told each measure that is done.

    Raises:
        InputError: a limit that cannot be checked, runs that cannot be compared, values beyond a
            limit of so few requests that chance could not give less than ``alpha``.
        UnknownRunError: no such run.
    """
    check_limits(limits)
    checks: list[DriftCheck] = []
    notes = _other_settings(lake.run(against), lake.run(run_id))
    for name in dict.fromkeys(limit.measure for limit in limits):
        found = run_measure(lake, name, run_id=against, other_run_id=run_id, settings=settings)
        notes += [note for note in found.notes if note not in notes]
        checks += [_check(found, limit, alpha) for limit in limits if limit.measure == name]
        progress(name)
    return Drift(
        run_id, against, alpha, settings.draws, settings.level, tuple(checks), tuple(notes)
    )


def _check(found: MeasureResult, limit: DriftLimit, alpha: float | None) -> DriftCheck:
    measure, frame, name = found.measure, found.frame, limit.column
    value = pl.col(name).cast(pl.Float64)
    held = value.abs() if limit.absolute else value
    sides = []
    if limit.low is not None:
        sides.append(limit.low - held)
    if limit.high is not None:
        sides.append(held - limit.high)
    rows = frame.with_columns(value=value, _beyond=pl.max_horizontal(sides))
    rows = rows.filter(pl.col("_beyond").is_not_null() & pl.col("_beyond").is_not_nan())
    if rows.is_empty():
        raise InputError(
            f"{limit.measure}.{name} has no value for these two runs, so it cannot be checked",
            "take the limit out of the job, or compare runs of the same requests.",
        )
    columns = {end: f"{name}_{end}" for end in _NUMBERS[1:-1] if f"{name}_{end}" in rows.columns}
    beyond = pl.col("_beyond") > 0
    unlikely = pl.lit(value=True)
    if alpha is not None and "p_adjusted" in columns and measure.null in _NO_DRIFT:
        unlikely = _is_unlikely(limit, alpha)
        if rows.filter(beyond & pl.col(columns["p_adjusted"]).is_not_nan()).height:
            _check_enough_requests(found.num_requests, alpha)
    rows = rows.with_columns(breach=beyond & unlikely)
    order = ["breach", "_beyond", *measure.key]
    rows = rows.sort(order, descending=[True, True, *[False] * len(measure.key)])
    shown = rows.head(_MOST_ROWS).select(
        *measure.key,
        "value",
        *(pl.col(column).alias(end) for end, column in columns.items()),
        "breach",
    )
    return DriftCheck(
        limit.measure,
        name,
        limit.words,
        rows.height,
        rows.filter(beyond).height,
        int(rows["breach"].sum()),
        tuple(_plain(row) for row in shown.iter_rows(named=True)),
    )


def _check_enough_requests(counts: Sequence[int], alpha: float) -> None:
    """See that n requests that change places can be as unlikely as ``alpha``: 2^(1 - n) at best."""
    needed = 1 + math.ceil(-math.log2(alpha))
    if min(counts) < needed:
        raise InputError(
            f"{min(counts)} requests cannot show that a change is no chance at alpha {alpha:g}",
            f"capture {needed} or more, or set `alpha: null`, which judges by the limits alone.",
        )


def _other_settings(earlier: Mapping[str, Any], run: Mapping[str, Any]) -> list[str]:
    """A note on what is not the same in two rows of `runs`, which may be why the runs differ."""
    other = [
        f"{name} ({earlier.get(name)}, {run.get(name)})" if name in _SHORT else name
        for name in (*_SHORT, *_LONG)
        if earlier.get(name) != run.get(name)
    ]
    return [f"the earlier run and this one differ in {', '.join(other)}."] if other else []


def _is_unlikely(limit: DriftLimit, alpha: float) -> pl.Expr:
    """Whether chance does not explain a ``value`` beyond the limit.

    The probability has two sides: a value nearer than chance to the other run is unlikely, too.
    """
    p, chance = (
        pl.col(f"{limit.column}_{end}").cast(pl.Float64).fill_nan(None)
        for end in ("p_adjusted", "chance")
    )
    value = pl.col("value")
    is_high = pl.lit(value=False)
    if limit.high is not None:
        is_high = value > (0.0 if limit.absolute else limit.high)
    away = pl.when(is_high).then(value > chance).otherwise(value < chance)
    return p.is_null() | ((p <= alpha) & away)


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    """Without what is not a number, which JSON has no word for."""
    return {
        name: None if isinstance(value, float) and value != value else value  # noqa: PLR0124
        for name, value in row.items()
    }
