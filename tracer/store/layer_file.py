"""Parquet files of the tables that are sorted by layer: `routing`, `usage`, `candidates`, ...

pyarrow's writer spends most of its time finding out what is known here: where lists begin, which
ids occur (all below the number of experts), and which texts and positions (the same in every
layer). So lists are encoded from arrays directly, and the columns that layers share are encoded
once, by pyarrow, and repeated byte by byte: the same format, a fifth of the compute time, smaller
files.

A file has one row group per layer. Ids and counts are dictionary indices of one or two whole
bytes, floats are byte-split, all is compressed with zstd level 1.
Source of the format: github.com/apache/parquet-format, README.md and Encodings.md.
"""

import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
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

__all__ = ["Layer", "write_layers"]

_MAGIC = b"PAR1"
_ZSTD_LEVEL = 1  # level 3 saves 1 % of the size for a tenth of the speed
_PAGE_VALUES = 1 << 18  # 1 MiB of floats before compression
_ONE_BYTE, _TWO_BYTES = 1 << 8, 1 << 16
_HALF = np.uint32(0xFFFF)
# Beyond its dictionary's limit pyarrow spells every text out, row by row.
_MAX_DICTIONARY = 1 << 28


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


def write_layers(
    file: BinaryIO,
    schema: pa.Schema,
    shared: pa.Table,
    layers: Iterable[Layer],
    num_experts: int,
) -> int:
    """Write one file.

    Args:
        file: empty.
        schema: of the table.
        shared: n rows of its columns that are the same in every layer.
        layers: their lists, in the order of the schema.
        num_experts: expert ids are 0..num_experts-1.

    Returns:
        Number of rows.
    """
    rows: int = shared.num_rows
    columns = _shared_chunks(shared) if rows else {}
    lists = [field.name for field in schema if pa.types.is_list(field.type)]
    groups: list[Value] = []
    pages: list[_Part] | None = None
    offset = file.write(_MAGIC)
    for layer in layers:
        if not rows:
            continue
        columns["layer_id"] = _constant_chunk(layer.layer_id, rows)
        if pages is None or not isinstance(layer.lengths, int):
            pages = list(_pages(rows, layer.lengths))
        for name, values in zip(lists, layer.lists, strict=True):
            columns[name] = _list_chunk(values.ravel(), pages, num_experts)
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
        dictionary_pagesize_limit=_MAX_DICTIONARY,
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
            (bounds.min, bounds.max) if bounds is not None and bounds.has_min_max else None,
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


@dataclass(frozen=True, slots=True)
class _Part:
    """The values that one page of each list column holds, and where its lists begin."""

    values: slice
    levels: bytes


def _pages(rows: int, lengths: int | npt.NDArray[np.int64]) -> Iterator[_Part]:
    """Cut rows into pages of about ``_PAGE_VALUES`` values."""
    widths = np.full(rows, lengths) if isinstance(lengths, int) else lengths
    ends = np.cumsum(widths)
    first = 0
    while first < rows:
        begin = int(ends[first] - widths[first])
        last = max(first + 1, int(np.searchsorted(ends, begin + _PAGE_VALUES, side="right")))
        end = int(ends[last - 1])
        repeated = np.ones(end - begin, dtype=np.uint8)
        repeated[ends[first:last] - widths[first:last] - begin] = 0
        starts = _bit_packed(np.packbits(repeated, bitorder="little").tobytes(), len(repeated), 1)
        defined = varint(len(repeated) << 1) + b"\3"  # list, entry and value are all there
        yield _Part(slice(begin, end), _levels(starts) + _levels(defined))
        first = last


def _list_chunk(values: npt.NDArray[Any], pages: Sequence[_Part], num_experts: int) -> Chunk:
    if values.dtype in (np.float32, np.float64):
        return _chunk(values, pages, "BYTE_STREAM_SPLIT", _byte_split)
    largest = num_experts - 1 if values.dtype == np.int16 else int(values.max())
    if largest >= min(_TWO_BYTES, max(_ONE_BYTE, len(values))):  # a dictionary would not pay
        return _chunk(values, pages, "PLAIN", lambda part: part.astype("<i4").tobytes())
    width = 1 if largest < _ONE_BYTE else 2

    def indices(part: npt.NDArray[Any]) -> bytes:
        data = part.astype(f"<u{width}").tobytes()
        return bytes([8 * width]) + _bit_packed(data, len(part), 8 * width)

    return _chunk(values, pages, "RLE_DICTIONARY", indices, range(largest + 1))


def _chunk(
    values: npt.NDArray[Any],
    pages: Sequence[_Part],
    encoding: str,
    encode: Callable[[npt.NDArray[Any]], bytes],
    dictionary: Sequence[int] = (),
) -> Chunk:
    """Pages of ``encode``; with a dictionary, whose entries are their own indices."""
    data, raw = bytearray(), 0
    if dictionary:
        page, raw = _page(_plain_ints(dictionary), dictionary=len(dictionary))
        data += page
    before = len(data)
    for part in pages:
        body = part.levels + encode(values[part.values])
        page, raw_page = _page(body, part.values.stop - part.values.start, encoding)
        data += page
        raw += raw_page
    encodings = ("PLAIN", "RLE", encoding) if dictionary else ("RLE", encoding)
    return Chunk(bytes(data), raw, len(values), encodings, before)


def _byte_split(values: npt.NDArray[np.floating]) -> bytes:
    """First bytes of all values, then the second ones, ..."""
    size = values.dtype.itemsize
    if size == 4:  # noqa: PLR2004 - float32
        bits = values.view(np.uint32)
        planes = np.zeros((size, len(values)), dtype=np.uint8)
        # Of bfloat16 numbers the lower two bytes are zero.
        for number in range(0 if np.bitwise_or.reduce(bits) & _HALF else 2, size):
            planes[number] = bits >> np.uint32(8 * number)
        return planes.tobytes()
    return np.ascontiguousarray(values.view(np.uint8).reshape(-1, size).T).tobytes()


def _bit_packed(data: bytes, count: int, bits: int) -> bytes:
    """A run of ``count`` numbers of so many bits, filled up to a group of eight."""
    groups = -(-count // 8)
    return varint(groups << 1 | 1) + data.ljust(groups * bits, b"\0")


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
