"""Reads columns of Parquet files from outside, never more than a limit of unpacked bytes."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tracer.errors import InputError, first_line
from tracer.store.import_limits import LABEL_BYTES, REQUEST_BYTES, Unpacked
from tracer.store.parquet_pages import PageError, unpacked_size

__all__ = ["cast_columns", "read_columns", "read_limited"]

_WRITE_AGAIN = "write the file again with pyarrow's, Polars' or DuckDB's usual settings."


def read_columns(
    path: Path, types: Mapping[str, pa.DataType], limit: Unpacked | None = None
) -> pa.Table:
    """Some columns of a Parquet file, in these types and without nulls.

    Raises:
        InputError: unreadable, a column missing, of another type or with empty values, or beyond
            the limit.
    """
    return cast_columns(path, read_limited(path, list(types), limit or Unpacked()), types)


def read_limited(
    path: Path, needed: Sequence[str], limit: Unpacked, *, labels: str | None = None
) -> pa.Table:
    """Some columns of a Parquet file, those that are texts decoded.

    Args:
        path: of the file.
        needed: names of columns.
        limit: of what they unpack to.
        labels: takes all other columns, too, that are not nested, and the one of this name.

    Raises:
        InputError: unreadable, a column missing, or beyond the limit.
    """
    try:
        with pq.ParquetFile(path) as file:
            columns = list(needed)
            schema = file.schema_arrow
            if missing := [name for name in needed if name not in schema.names]:
                raise InputError(
                    f"{path} lacks the column{'s' if len(missing) > 1 else ''}"
                    f" {', '.join(missing)}",
                    f"it needs {', '.join(needed)}.",
                )
            if labels is not None:
                columns += [
                    field.name
                    for field in schema
                    if field.name not in needed
                    and (field.name == labels or not pa.types.is_nested(field.type))
                ]
                per_row = REQUEST_BYTES + LABEL_BYTES * (len(columns) - len(needed))
                limit.take(path, file.metadata.num_rows * per_row)
            limit.take(path, unpacked_size(path, file, columns))
            texts = [
                field.name for field in schema if field.name in columns and _is_text(field.type)
            ]
        # Texts as numbers of dictionary entries: until their sum is known a million copies of one
        # are not made.
        with pq.ParquetFile(path, read_dictionary=texts) as file:
            table = file.read(columns=columns)
        for place, column in enumerate(table.columns):
            if pa.types.is_dictionary(column.type):
                limit.take(path, sum(_text_bytes(chunk) for chunk in column.chunks))
                plain = column.cast(column.type.value_type)
                table = table.set_column(place, table.column_names[place], plain)
    except PageError as error:
        raise InputError(f"cannot read {path} as Parquet: {error}", _WRITE_AGAIN) from error
    except (OSError, pa.ArrowException, MemoryError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {path} as Parquet: {first_line(error)}") from error
    return table


def _is_text(dtype: pa.DataType) -> bool:
    return bool(
        pa.types.is_string(dtype)
        or pa.types.is_large_string(dtype)
        or pa.types.is_binary(dtype)
        or pa.types.is_large_binary(dtype)
    )


def _text_bytes(chunk: pa.DictionaryArray) -> int:
    """What its values take one by one: an entry that stands a million times, a million times."""
    dictionary = chunk.dictionary
    if not _is_text(dictionary.type):
        return int(dictionary.nbytes) // max(1, len(dictionary)) * len(chunk)
    lengths = pc.binary_length(dictionary).cast(pa.int64()).take(chunk.indices)
    return int(pc.sum(lengths, min_count=0).as_py())


def cast_columns(path: Path, table: pa.Table, types: Mapping[str, pa.DataType]) -> pa.Table:
    """The named columns of what ``path`` held, in the given types and without nulls.

    Raises:
        InputError: another type, or empty values.
    """
    arrays = []
    for name, dtype in types.items():
        try:
            column = table[name].cast(dtype)
        except (pa.ArrowException, OverflowError) as error:
            raise InputError(f"{path}: column {name} is not {dtype}: {error}") from error
        if column.null_count:
            raise InputError(f"{path}: column {name} has empty values")
        arrays.append(column.combine_chunks())
    return pa.table(arrays, names=list(types))
