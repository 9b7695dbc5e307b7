"""The section on drift: a run held to limits against an earlier one."""

from collections.abc import Mapping
from typing import Any

__all__ = ["drift_section"]

_WORDS = {
    "value": "value",
    "low": "interval from",
    "high": "to",
    "chance_low": "by chance from",
    "chance_high": "to",
    "p_adjusted": "p, adjusted",
    "breach": "beyond limit",
}


def drift_section(drift: Mapping[str, Any]) -> dict[str, Any]:
    """What the template needs.

    Args:
        drift: `against`, `alpha`, `draws`, `level`, `notes`, and `checks`: each with `measure`,
            `column`, `limit`, `num_rows`, `num_beyond`, `num_breaches` and `rows` of a key and
            numbers.
    """
    checks = [_check(check) for check in drift["checks"]]
    broken = [check for check in checks if check["num_breaches"]]
    if broken:
        names = ", ".join(check["name"] for check in broken)
        verdict = f"{len(broken)} of {len(checks)} limits are not kept: {names}."
    else:
        verdict = f"All {len(checks)} limits are kept."
    return {
        "against": drift["against"],
        "verdict": verdict,
        "broken": bool(broken),
        "alpha": drift["alpha"],
        "draws": drift["draws"],
        "level": drift["level"],
        "notes": drift["notes"],
        "checks": checks,
    }


def _check(check: Mapping[str, Any]) -> dict[str, Any]:
    rows = check["rows"]
    columns = list(rows[0])
    return {
        "name": f"{check['measure']}.{check['column']}",
        "limit": check["limit"],
        "num_rows": check["num_rows"],
        "num_beyond": check["num_beyond"],
        "num_breaches": check["num_breaches"],
        "columns": [_WORDS.get(name, name.removesuffix("_id")) for name in columns],
        "rows": [
            {"breach": row["breach"], "cells": [_cell(row[name]) for name in columns]}
            for row in rows
        ],
    }


def _cell(value: Any) -> str:
    match value:
        case None:
            return "n/a"
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:.4g}"
        case _:
            return str(value)
