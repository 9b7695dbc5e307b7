"""Periods of a job that makes a new run each hour, day, week or month, as the clock of UTC says."""

import datetime
import re

from tracer.errors import InputError

__all__ = ["check_period", "period_of"]

_FORMS = {
    "hour": ("%Y-%m-%dT%H", r"\d{4}-\d\d-\d\dT\d\d", "2026-11-27T02"),
    "day": ("%Y-%m-%d", r"\d{4}-\d\d-\d\d", "2026-11-27"),
    "week": ("%G-W%V", r"\d{4}-W\d\d", "2026-W48"),
    "month": ("%Y-%m", r"\d{4}-\d\d", "2026-11"),
}


def period_of(every: str, now: datetime.datetime) -> str | None:
    """The period that ``now``, in UTC, lies in; None for a job that runs once."""
    return now.strftime(_FORMS[every][0]) if every in _FORMS else None


def check_period(every: str, period: str) -> str:
    """``period`` if it is one of a job of that kind.

    Raises:
        InputError: it is not.
    """
    if every not in _FORMS:
        raise InputError("a job that runs once has no periods", "set `every` in the job file.")
    _, _, example = _FORMS[every]
    if not _exists(every, period):
        raise InputError(
            f"{period!r} is no period of a job that runs every {every}",
            f"write it as {example}.",
        )
    return period


def _exists(every: str, period: str) -> bool:
    form, pattern, _ = _FORMS[every]
    text, form = (f"{period}-1", f"{form}-%u") if every == "week" else (period, form)
    try:
        datetime.datetime.strptime(text, form)  # noqa: DTZ007 - only whether it exists
    except ValueError:
        return False
    return re.fullmatch(pattern, period) is not None
