"""Parquet files of the tables that are sorted by layer: `routing`, `usage`, `candidates`, ...

A file has one row group per layer. The columns that layers share are encoded once and repeated
byte by byte.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tracer.store.column_chunks import Runs, constant_chunk, number_chunk
from tracer.store.list_chunks import ListPage, list_chunk, list_pages
from tracer.store.parquet_metadata import Chunk, footer, row_group
from tracer.store.thrift import Value

__all__ = ["Layer", "Plain", "write_layers", "write_plain"]

_MAGIC = b"PAR1"


@dataclass(frozen=True, slots=True)
class Layer:
    """The lists of one layer, n rows.

    lengths: of the lists of each row, int64 [n] and none 0, or the one length of all lists of
        all layers
    lists: of each column the values of all rows, in any shape: int16 (expert ids), int32
        (counts), float32 or float64
    """

    layer_id: int
    lengths: int | npt.NDArray[np.int64]
    lists: Sequence[npt.NDArray[Any]]


# A column: values that repeat, or numbers with the name of their encoding.
Plain = Runs | tuple[npt.NDArray[Any], str]


def write_plain(file: BinaryIO, schema: pa.Schema, rows: int, columns: Mapping[str, Plain]) -> int:
    """Write a file of one row group and no lists.

    Args:
        file: empty.
        schema: of the table.
        rows: number of rows.
        columns: all of the schema, of so many rows.

    Returns:
        Number of rows.
    """
    return _write_groups(file, schema, rows, [_chunks(columns)] if rows else [])


def write_layers(
    file: BinaryIO,
    schema: pa.Schema,
    *,
    rows: int,
    shared: Mapping[str, Plain],
    layers: Iterable[Layer],
    num_experts: int,
) -> int:
    """Write one file.

    Args:
        file: empty.
        schema: of the table.
        rows: of each layer.
        shared: the columns that are the same in every layer.
        layers: their lists, in the order of the schema.
        num_experts: expert ids are 0..num_experts-1.

    Returns:
        Number of rows.
    """

    def groups() -> Iterator[Mapping[str, Chunk]]:
        columns = _chunks(shared) if rows else {}
        lists = [field.name for field in schema if pa.types.is_list(field.type)]
        pages: list[ListPage] | None = None
        for layer in layers:
            if not rows:
                continue
            if pages is None or not isinstance(layer.lengths, int):
                pages = list(list_pages(rows, layer.lengths))
            own = {
                name: list_chunk(values.ravel(), pages, num_experts)
                for name, values in zip(lists, layer.lists, strict=True)
            }
            yield {**columns, "layer_id": constant_chunk(layer.layer_id, rows), **own}

    return _write_groups(file, schema, rows, groups())


def _chunks(columns: Mapping[str, Plain]) -> dict[str, Chunk]:
    return {
        name: column.chunk() if isinstance(column, Runs) else number_chunk(*column)
        for name, column in columns.items()
    }


def _write_groups(
    file: BinaryIO, schema: pa.Schema, rows: int, groups: Iterable[Mapping[str, Chunk]]
) -> int:
    written: list[Value] = []
    offset = file.write(_MAGIC)
    for columns in groups:
        written.append(row_group(schema, columns, rows, len(written), offset))
        offset += file.write(b"".join(columns[field.name].data for field in schema))
    end = footer(schema, rows * len(written), written)
    file.write(end + len(end).to_bytes(4, "little") + _MAGIC)
    return rows * len(written)
