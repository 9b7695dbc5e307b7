"""Which tokens an expert takes, from a file that a measure wrote: a table for the page.

The file is CSV with a header, or JSON (a list of objects): ``layer_id``, ``expert_id`` and
``token_id`` in every row, ``token`` (the token's text) where it is known, and any other columns,
which are shown as they are.
"""

import csv
import io
import json
from pathlib import Path

from tracer.errors import InputError
from tracer.report.chart import Table, finite

__all__ = ["read_token_roles"]

_NEEDED = ("layer_id", "expert_id", "token_id")
_MOST_ROWS = 100_000
_MOST_COLUMNS = 40


def read_token_roles(path: Path) -> Table:
    """Rows sorted by layer and expert, in the file's order within an expert.

    Raises:
        InputError: the file cannot be read, is not such a table, or is too long for a page.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {path}: {error}") from error
    try:
        rows = _from_json(text) if path.suffix == ".json" else _from_csv(text)
    except (ValueError, csv.Error) as error:
        raise InputError(f"{path} is not a table of token roles: {error}") from error
    if not rows:
        raise InputError(f"{path} has no rows")
    if len(rows) > _MOST_ROWS:
        raise InputError(
            f"{path} has {len(rows):,} rows; a page holds {_MOST_ROWS:,}",
            "keep the first tokens of every expert.",
        )
    names = list(rows[0])
    if missing := [name for name in _NEEDED if name not in names]:
        raise InputError(
            f"{path} has no column {missing[0]!r}",
            f"it needs {', '.join(_NEEDED)}; token if known.",
        )
    if len(names) > _MOST_COLUMNS or any(list(row) != names for row in rows):
        raise InputError(f"{path} is not a table: its rows differ, or have too many columns")
    first = [*_NEEDED, *(["token"] if "token" in names else [])]
    columns = [*first, *(name for name in names if name not in first)]
    try:
        ordered = sorted(rows, key=lambda row: (_id(row["layer_id"]), _id(row["expert_id"])))
        cells = [[_cell(name, row[name]) for name in columns] for row in ordered]
    except (TypeError, ValueError) as error:
        raise InputError(f"{path} has an id that is not a whole number: {error}") from error
    return {"columns": columns, "rows": cells}


def _from_csv(text: str) -> list[dict[str, object]]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    names = next(reader, [])
    return [dict(zip(names, row, strict=True)) for row in reader if row]


def _from_json(text: str) -> list[dict[str, object]]:
    found = json.loads(text)
    if not isinstance(found, list) or not all(isinstance(row, dict) for row in found):
        raise ValueError("it should be a list of objects")
    return found


def _id(value: object) -> int:
    number = int(str(value))
    if number < 0:
        raise ValueError(value)
    return number


def _cell(name: str, value: object) -> str | float | None:
    """A number where it is one; the text of a token stays text."""
    if name in _NEEDED:
        return _id(value)
    if name == "token" or value is None:
        return None if value is None else str(value)
    try:
        return finite(float(str(value)))
    except ValueError:
        return str(value)
