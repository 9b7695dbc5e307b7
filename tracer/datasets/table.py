"""From records with named columns, of whatever source, to checked dataset rows."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, time
from decimal import Decimal

from tracer.datasets.options import DatasetOptions
from tracer.errors import DatasetError
from tracer.records import NO_DOMAIN, DatasetRow

__all__ = ["MAX_ID_CHARS", "Table", "rows_of"]

MAX_ID_CHARS = 200

# Line and paragraph separators are no control characters, yet they break lines as these do.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


@dataclass(frozen=True, slots=True)
class Table:
    """Records under way.

    columns: column names; of JSON lines, the keys of the first record
    records: pairs of where a record stands ("line 3") and its values by column
    uniform: every record has every column
    """

    source: str
    columns: Sequence[str]
    records: Iterator[tuple[str, Mapping[str, object]]]
    uniform: bool = True


@dataclass(frozen=True, slots=True)
class _Fields:
    """The columns with a role; the others are labels."""

    prompt: str
    row_id: str | None
    domain: str | None
    capture: str | None


def rows_of(
    table: Table, options: DatasetOptions, prompt_names: Sequence[str] = ("prompt",)
) -> Iterator[DatasetRow]:
    """Yield the table's rows, each checked.

    Args:
        table: the records
        options: which columns hold prompt, id, domain and whether a row is captured
        prompt_names: columns tried for the prompt, in this order, where none was named

    Raises:
        DatasetError: a column is missing, a value cannot be used, or an id occurs twice.
    """
    fields = _fields(table, options, prompt_names)
    seen: set[str] = set()
    # Only a named column must exist; JSON lines may have it in a later record.
    named = [name for name in (options.domain_field, options.capture_field) if name is not None]
    unseen = {name for name in named if name not in table.columns}
    for number, (place, record) in enumerate(table.records):
        where = f"{table.source}, {place}"
        row_id = _row_id(where, number, record, fields)
        if row_id in seen:
            raise DatasetError(f"{where}: the id {row_id!r} occurs twice", "make ids unique.")
        seen.add(row_id)
        unseen.difference_update(record)
        yield DatasetRow(
            row_id=row_id,
            prompt=_prompt(where, record, fields),
            domain=_domain(where, record, fields),
            labels=_labels(where, record, fields),
            capture=_capture(where, record, fields),
        )
    for name in named:
        if name in unseen:
            raise DatasetError.missing_column(table.source, name, table.columns)


def _fields(table: Table, options: DatasetOptions, prompt_names: Sequence[str]) -> _Fields:
    """Choose the columns; named ones must exist, some of JSON lines in a later record only."""
    columns = table.columns
    wanted = prompt_names if options.prompt_field is None else (options.prompt_field,)
    prompt = next((name for name in wanted if name in columns), None)
    if prompt is None:
        raise DatasetError.missing_column(table.source, wanted[0], columns)
    row_id = options.id_field
    if row_id is None:
        row_id = "id" if "id" in columns else None
    elif row_id not in columns:
        raise DatasetError.missing_column(table.source, row_id, columns)
    domain = _optional(table, "domain", options.domain_field)
    return _Fields(prompt, row_id, domain, _optional(table, "capture", options.capture_field))


def _optional(table: Table, default: str, named: str | None) -> str | None:
    """Column of a role that not every dataset has."""
    if named is None:
        return default if default in table.columns or not table.uniform else None
    if named not in table.columns and table.uniform:
        raise DatasetError.missing_column(table.source, named, table.columns)
    return named


def _prompt(where: str, record: Mapping[str, object], fields: _Fields) -> str:
    prompt = record.get(fields.prompt)
    if not isinstance(prompt, str):
        found = "null or missing" if prompt is None else f"a {type(prompt).__name__}, not text"
        raise DatasetError(f"{where}: {fields.prompt!r} is {found}")
    if not prompt:
        raise DatasetError(f"{where}: {fields.prompt!r} is empty")
    return _encodable(where, fields.prompt, prompt)


def _row_id(where: str, number: int, record: Mapping[str, object], fields: _Fields) -> str:
    if fields.row_id is None:
        if "id" in record:
            raise DatasetError(
                f"{where}: this record has an 'id', the first one has none",
                "give every record an id, or none.",
            )
        return str(number)
    value = record.get(fields.row_id)
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise DatasetError(f"{where}: {fields.row_id!r} is no usable id (text or an integer)")
    text = str(value)
    if len(text) > MAX_ID_CHARS:
        raise DatasetError(f"{where}: the id has {len(text)} characters (at most {MAX_ID_CHARS})")
    if _CONTROL.search(text):
        raise DatasetError(f"{where}: the id {text!r} holds a control character")
    return _encodable(where, fields.row_id, text)


def _domain(where: str, record: Mapping[str, object], fields: _Fields) -> str:
    value = None if fields.domain is None else record.get(fields.domain)
    if value is None or value == "":
        return NO_DOMAIN
    text = _scalar_text(value)
    if text is None:
        raise DatasetError(f"{where}: {fields.domain!r} is a {type(value).__name__}, not text")
    return _encodable(where, str(fields.domain), text)


def _capture(where: str, record: Mapping[str, object], fields: _Fields) -> bool:
    value = None if fields.capture is None else record.get(fields.capture)
    if value is None or value == "":
        return True
    text = str(value).lower()
    if not isinstance(value, bool | str) or text not in ("true", "false"):
        raise DatasetError(
            f"{where}: {fields.capture!r} is {value!r}, not true or false",
            "--capture-field names the column that tells which rows are recorded.",
        )
    return text == "true"


def _labels(where: str, record: Mapping[str, object], fields: _Fields) -> dict[str, str]:
    roles = (fields.prompt, fields.row_id, fields.domain, fields.capture)
    labels = {}
    for name, value in record.items():
        if name not in roles and (text := _scalar_text(value)) is not None:
            labels[_encodable(where, name, name)] = _encodable(where, name, text)
    return labels


def _scalar_text(value: object) -> str | None:
    """Return a scalar as text; None for null, bytes and nested values, which are no labels."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float | Decimal | date | time):
        return str(value)
    return None


def _encodable(where: str, name: str, text: str) -> str:
    """Refuse text that UTF-8 cannot hold; JSON escapes can smuggle in half a character."""
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise DatasetError(f"{where}: {name!r} holds a lone surrogate, not text") from error
    return text
