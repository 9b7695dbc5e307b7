"""Parquet files of the tables with a row per token and layer: `routing`, `candidates`, ...

pyarrow's writer spends most of its time finding out what is known here: where lists begin (every
`width` values), which ids occur (all below the number of experts), and which texts and positions
(the same in every layer). So lists are encoded from arrays directly, and the columns that layers
share are encoded once, by pyarrow, and repeated byte by byte: the same format, a fifth of the
compute time, smaller files.

A file has one row group per layer. Ids are dictionary indices of one or two whole bytes, floats
are byte-split, all is compressed with zstd level 1.
Source of the format: github.com/apache/parquet-format, README.md and Encodings.md.
"""

import io
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from tracer.store.parquet_metadata import (
    Chunk,
    data_page_header,
    dictionary_page_header,
    footer,
    row_group,
)
from tracer.store.thrift import Value, varint

__all__ = ["write_layers"]

_MAGIC = b"PAR1"
_ZSTD_LEVEL = 1  # level 3 saves 1 % of the size for a tenth of the speed
_PAGE_VALUES = 1 << 18  # 1 MiB of floats before compression
_ONE_BYTE = 256


def write_layers(
    file: BinaryIO,
    schema: pa.Schema,
    shared: pa.Table,
    layers: Iterable[tuple[int, Sequence[npt.NDArray[Any]]]],
    num_experts: int,
) -> int:
    """Write one file.

    Args:
        file: empty.
        schema: of the table; its lists hold int16 (expert ids) or float32.
        shared: n rows of its columns that are the same in every layer.
        layers: a layer's id and its lists in the order of the schema: int16 or float32
            [n, width], contiguous.
        num_experts: expert ids are 0..num_experts-1.

    Returns:
        Number of rows.
    """
    rows: int = shared.num_rows
    columns = _shared_chunks(shared) if rows else {}
    lists = [field.name for field in schema if pa.types.is_list(field.type)]
    groups: list[Value] = []
    offset = file.write(_MAGIC)
    for layer_id, arrays in layers:
        if not rows:
            continue
        columns["layer_id"] = _constant_chunk(layer_id, rows)
        for name, values in zip(lists, arrays, strict=True):
            of_ids = values.dtype == np.int16
            columns[name] = _ids_chunk(values, num_experts) if of_ids else _floats_chunk(values)
        groups.append(row_group(schema, columns, rows, len(groups), offset))
        offset += sum(file.write(columns[field.name].data) for field in schema)
    end = footer(schema, rows * len(groups), groups)
    file.write(end + len(end).to_bytes(4, "little") + _MAGIC)
    return rows * len(groups)


def _shared_chunks(shared: pa.Table) -> dict[str, Chunk]:
    """The columns as pyarrow encodes them: integers as differences, texts as dictionaries."""
    numbers = [field.name for field in shared.schema if pa.types.is_integer(field.type)]
    sink = io.BytesIO()
    pq.write_table(
        shared,
        sink,
        row_group_size=shared.num_rows,
        compression="zstd",
        compression_level=_ZSTD_LEVEL,
        store_schema=False,
        use_dictionary=[name for name in shared.column_names if name not in numbers],
        column_encoding=dict.fromkeys(numbers, "DELTA_BINARY_PACKED"),
    )
    data = sink.getvalue()
    group = pq.read_metadata(sink).row_group(0)
    chunks = {}
    for index, name in enumerate(shared.column_names):
        column = group.column(index)
        pages = column.data_page_offset
        begin = column.dictionary_page_offset if column.has_dictionary_page else pages
        bounds = column.statistics
        chunks[name] = Chunk(
            data[begin : begin + column.total_compressed_size],
            column.total_uncompressed_size,
            column.num_values,
            column.encodings,
            pages - begin,
            (bounds.min, bounds.max) if bounds.has_min_max else None,
        )
    return chunks


def _constant_chunk(number: int, rows: int) -> Chunk:
    """One number in every row: a dictionary of one entry and one run of its index."""
    dictionary, raw_dictionary = _page(_plain_ints([number]), dictionary=1)
    run = varint(rows << 1) + b"\0"
    body = _levels(varint(rows << 1) + b"\1") + b"\1" + run  # nothing null; indices of one bit
    page, raw_page = _page(body, rows, "RLE_DICTIONARY")
    return Chunk(
        dictionary + page,
        raw_dictionary + raw_page,
        rows,
        ("PLAIN", "RLE", "RLE_DICTIONARY"),
        len(dictionary),
        (number, number),
    )


def _ids_chunk(ids: npt.NDArray[np.int16], num_experts: int) -> Chunk:
    """Lists of expert ids: every expert is in the dictionary, so that an id is its own index.

    Indices take whole bytes, which costs nothing once compressed.
    """
    dictionary, raw = _page(_plain_ints(range(num_experts)), dictionary=num_experts)
    width = 1 if num_experts <= _ONE_BYTE else 2
    data = bytearray(dictionary)
    for part, levels in _parts(ids):
        indices = part.astype("<u1" if width == 1 else "<u2").tobytes()
        groups = -(-part.size // 8)  # of eight indices; the last may be filled up
        run = varint(groups << 1 | 1) + indices + bytes((groups * 8 - part.size) * width)
        page, raw_page = _page(levels + bytes([8 * width]) + run, part.size, "RLE_DICTIONARY")
        data += page
        raw += raw_page
    encodings = ("PLAIN", "RLE", "RLE_DICTIONARY")
    return Chunk(bytes(data), raw, ids.size, encodings, len(dictionary))


def _floats_chunk(values: npt.NDArray[np.float32]) -> Chunk:
    """Lists of floats, byte-split: first bytes of all values, then the second ones, ..."""
    data, raw = bytearray(), 0
    for part, levels in _parts(values):
        bits = part.ravel().view(np.uint32)
        by_byte = np.zeros((4, part.size), dtype=np.uint8)
        # Of bfloat16 numbers the lower two bytes are zero.
        first = 0 if np.bitwise_or.reduce(bits) & np.uint32(0xFFFF) else 2
        for number in range(first, 4):
            by_byte[number] = bits >> np.uint32(8 * number)
        page, raw_page = _page(levels + by_byte.tobytes(), part.size, "BYTE_STREAM_SPLIT")
        data += page
        raw += raw_page
    return Chunk(bytes(data), raw, values.size, ("RLE", "BYTE_STREAM_SPLIT"))


def _parts(values: npt.NDArray[Any]) -> Iterator[tuple[npt.NDArray[Any], bytes]]:
    """The rows of each page and the levels that say where its lists begin."""
    rows, width = values.shape
    each = max(1, _PAGE_VALUES // width)
    for begin in range(0, rows, each):
        part = values[begin : begin + each]
        yield part, _list_levels(len(part), width)


@cache
def _list_levels(rows: int, width: int) -> bytes:
    """Levels of ``rows`` lists of ``width`` values each, none null."""
    repeated = np.ones((rows, width), dtype=np.uint8)
    repeated[:, 0] = 0
    groups = -(-repeated.size // 8)
    bits = np.packbits(repeated.ravel(), bitorder="little").tobytes()
    starts = varint(groups << 1 | 1) + bits
    defined = varint(repeated.size << 1) + b"\3"  # list, entry and value are all there
    return _levels(starts) + _levels(defined)


def _levels(runs: bytes) -> bytes:
    return len(runs).to_bytes(4, "little") + runs


def _plain_ints(numbers: Iterable[int]) -> bytes:
    return np.array(list(numbers), dtype="<i4").tobytes()


def _page(
    body: bytes, num_values: int = 0, encoding: str = "PLAIN", *, dictionary: int = 0
) -> tuple[bytes, int]:
    """A page with its header, and its bytes before compression; ``dictionary``: its entries."""
    packed = pa.Codec("zstd", compression_level=_ZSTD_LEVEL).compress(body, asbytes=True)
    if dictionary:
        header = dictionary_page_header(len(body), len(packed), dictionary)
    else:
        header = data_page_header(len(body), len(packed), num_values, encoding)
    return header + packed, len(header) + len(body)
