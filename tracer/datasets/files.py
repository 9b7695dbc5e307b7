"""Local files as tables: JSON lines (plain or zstandard), CSV with a header, Parquet."""

import csv
import json
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from tracer.datasets.lines import MAX_LINE_BYTES, text_lines
from tracer.datasets.options import DatasetOptions
from tracer.datasets.table import Table
from tracer.errors import DatasetError, first_line

__all__ = ["SUFFIXES", "csv_records", "known_suffix", "read_table"]

SUFFIXES = (".jsonl", ".jsonl.zst", ".csv", ".parquet")
_BATCH_ROWS = 1024

_Records = Iterator[tuple[str, dict[str, object]]]


def known_suffix(name: str) -> str | None:
    """Return the supported suffix that ``name`` ends in, whatever its case."""
    return next((suffix for suffix in SUFFIXES if name.lower().endswith(suffix)), None)


def read_table(path: Path, options: DatasetOptions) -> Table:
    """Open a file by its suffix.

    Raises:
        DatasetError: unreadable, damaged, empty, or of a suffix not supported. Reading the
            records raises it too.
    """
    suffix = known_suffix(path.name)
    if suffix is None:
        raise DatasetError(
            f"{path} is of a kind that cannot be read", f"supported are {', '.join(SUFFIXES)}."
        )
    if suffix == ".parquet":
        return _parquet(path, options)
    records = _csv(path) if suffix == ".csv" else _json_lines(path)
    first = next(records, None)
    if first is None:
        raise DatasetError.empty(str(path))
    return Table(str(path), tuple(first[1]), chain((first,), records), uniform=suffix == ".csv")


def _json_lines(path: Path) -> _Records:
    for number, line in text_lines(path):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise DatasetError(f"{where}: not JSON: {error.msg} at column {error.colno}") from error
        # ValueError: an integer of more digits than Python converts.
        except (ValueError, RecursionError) as error:
            raise DatasetError(f"{where}: JSON that cannot be read: {error}") from error
        if not isinstance(record, dict):
            raise DatasetError(f"{where}: not a JSON object")
        yield f"line {number}", record


def csv_records(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the records of a CSV file, each with the number of its first line.

    Empty lines are passed over. The dialect is the csv module's, but strict: a quote that is
    never closed is an error instead of swallowing the rest of the file.

    Raises:
        DatasetError: unreadable, not UTF-8, or not CSV.
    """
    reader = csv.reader((line for _, line in text_lines(path)), strict=True)
    began_at = 1
    try:
        while (record := _next_record(reader)) is not None:
            if record:
                yield began_at, record
            began_at = reader.line_num + 1
    except csv.Error as error:
        raise DatasetError(f"{path}, line {began_at}: not CSV: {error}") from error


def _next_record(reader: Iterator[list[str]]) -> list[str] | None:
    """Read a record with room for long prompts; the module's own limit is 128 KiB a field.

    The limit is global to the process, so it is put back after each record.
    """
    previous = csv.field_size_limit(MAX_LINE_BYTES)
    try:
        return next(reader, None)
    finally:
        csv.field_size_limit(previous)


def _csv(path: Path) -> _Records:
    records = csv_records(path)
    _, header = next(records, (0, []))
    _check_unique(path, header)
    for line, values in records:
        if len(values) != len(header):
            raise DatasetError(
                f"{path}, line {line}: {len(values)} values under {len(header)} column names",
                "quote values that hold commas or line breaks.",
            )
        yield f"line {line}", dict(zip(header, values, strict=True))


def _check_unique(path: Path, columns: Sequence[str]) -> None:
    twice = sorted({name for name in columns if columns.count(name) > 1})
    if twice:
        raise DatasetError(f"{path} has two columns named {twice[0]!r}", "rename one of them.")


def _parquet(path: Path, options: DatasetOptions) -> Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            schema = file.schema_arrow
            num_rows = file.metadata.num_rows
    except (pa.ArrowException, OSError) as error:
        raise DatasetError(f"{path} is not a sound Parquet file: {first_line(error)}") from error
    _check_unique(path, schema.names)
    if not num_rows:
        raise DatasetError.empty(str(path))
    named = {"prompt", options.prompt_field, options.id_field, options.domain_field}
    named.add(options.capture_field)
    # Nested columns (embeddings, conversations) are no labels and costly to convert.
    wanted = [
        field.name for field in schema if field.name in named or not pa.types.is_nested(field.type)
    ]
    return Table(str(path), tuple(schema.names), _parquet_records(path, wanted))


def _parquet_records(path: Path, columns: list[str]) -> _Records:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(_BATCH_ROWS, columns=columns):
                for record in _plain_times(batch).to_pylist():
                    yield f"row {number}", record
                    number += 1
    # ValueError: a value Python has no type for.
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DatasetError(f"{path}, row {number}: damaged: {first_line(error)}") from error


def _plain_times(batch: Any) -> Any:
    """Turn timestamps into text, as nanoseconds fit no Python type."""
    import pyarrow as pa

    for index, field in enumerate(batch.schema):
        if pa.types.is_timestamp(field.type):
            text = batch.column(index).cast(pa.string())
            batch = batch.set_column(index, pa.field(field.name, pa.string()), text)
    return batch
