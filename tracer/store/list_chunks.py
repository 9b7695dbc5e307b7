"""Columns of lists in one row group, encoded as Parquet wants them.

pyarrow's writer spends most of its time finding out what is known here: where lists begin and
which ids occur, all below the number of experts. Ids and counts are dictionary indices of half a
byte, one or two, floats are byte-split.
Source of the format: github.com/apache/parquet-format, README.md and Encodings.md.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tracer.store.column_chunks import (
    byte_split,
    data_page,
    dictionary_page,
    levels,
    plain_ints,
)
from tracer.store.kernels import number_values, pack_bits
from tracer.store.parquet_metadata import Chunk
from tracer.store.thrift import varint

__all__ = ["ListPage", "list_chunk", "list_pages"]

_PAGE_VALUES = 1 << 18  # 1 MiB of floats before compression
_HALF_BYTE, _ONE_BYTE, _TWO_BYTES = 1 << 4, 1 << 8, 1 << 16


@dataclass(frozen=True, slots=True)
class ListPage:
    """The values that one page of each list column holds, and where its lists begin."""

    values: slice
    levels: bytes


def list_pages(rows: int, lengths: int | npt.NDArray[np.int64]) -> Iterator[ListPage]:
    """Cut rows into pages of about ``_PAGE_VALUES`` values.

    Args:
        rows: one or more.
        lengths: of the list of each row, none 0; or of all.
    """
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
        yield ListPage(slice(begin, end), levels(starts) + levels(defined))
        first = last


def list_chunk(values: npt.NDArray[Any], pages: Sequence[ListPage], num_experts: int) -> Chunk:
    """A column of lists.

    Args:
        values: of all lists, one after the other: int16 (ids below ``num_experts``), int32
            (counts), float32 or float64.
        pages: from ``list_pages``.
        num_experts: of the layer.
    """
    if values.dtype in (np.float32, np.float64):
        return _chunk(values, pages, "BYTE_STREAM_SPLIT", byte_split)
    if values.dtype == np.int16:
        return _indexed(values, pages, range(num_experts), _width(num_experts))
    largest = int(values.max())
    if largest < _ONE_BYTE:
        return _indexed(values, pages, range(largest + 1), _width(largest + 1))
    if largest >= min(_TWO_BYTES, len(values)):  # a dictionary would not pay
        return _chunk(values, pages, "PLAIN", lambda part: part.astype("<i4").tobytes())
    places, numbers = np.zeros(largest + 1, np.uint16), np.empty(len(values), np.uint16)
    number_values(values, places, numbers)
    entries = np.flatnonzero(places)
    few = len(entries) <= _ONE_BYTE  # whole bytes are quicker to compress, and to less
    width = _width(len(entries)) if few else (len(entries) - 1).bit_length()
    return _indexed(numbers, pages, entries.tolist(), width)


def _width(entries: int) -> int:
    """Bits of a dictionary index, where half bytes and bytes are to be had."""
    return 4 if entries <= _HALF_BYTE else 8 if entries <= _ONE_BYTE else 16


def _indexed(
    numbers: npt.NDArray[Any], pages: Sequence[ListPage], dictionary: Sequence[int], bits: int
) -> Chunk:
    """Dictionary indices of so many bits."""

    def indices(part: npt.NDArray[Any]) -> bytes:
        return bytes([bits]) + _bit_packed(_packed(part, bits), len(part), bits)

    return _chunk(numbers, pages, "RLE_DICTIONARY", indices, dictionary)


def _packed(numbers: npt.NDArray[Any], bits: int) -> bytes:
    """The lowest ``bits`` of each number, 4 to 16, without gaps."""
    if bits == 4:  # noqa: PLR2004
        return _halves(numbers.astype(np.uint8)).tobytes()
    if bits == 8:  # noqa: PLR2004
        return numbers.astype(np.uint8).tobytes()
    packed = np.zeros(-(-len(numbers) * bits // 8), np.uint8)
    pack_bits(numbers.astype(np.uint16, copy=False), bits, packed)
    return packed.tobytes()


def _chunk(
    values: npt.NDArray[Any],
    pages: Sequence[ListPage],
    encoding: str,
    encode: Callable[[npt.NDArray[Any]], bytes],
    dictionary: Sequence[int] = (),
) -> Chunk:
    """Pages of ``encode``; with a dictionary, whose entries are their own indices."""
    data, raw = bytearray(), 0
    if dictionary:
        page, raw = dictionary_page(plain_ints(dictionary), len(dictionary))
        data += page
    before = len(data)
    for part in pages:
        body = part.levels + encode(values[part.values])
        page, raw_page = data_page(body, part.values.stop - part.values.start, encoding)
        data += page
        raw += raw_page
    encodings = ("PLAIN", "RLE", encoding) if dictionary else ("RLE", encoding)
    return Chunk(bytes(data), raw, len(values), encodings, before)


def _halves(numbers: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Two numbers a byte, the first in its lower half."""
    pairs = np.append(numbers, np.zeros(len(numbers) % 2, dtype=np.uint8)).reshape(-1, 2)
    halves: npt.NDArray[np.uint8] = pairs[:, 0] | pairs[:, 1] << np.uint8(4)
    return halves


def _bit_packed(data: bytes, count: int, bits: int) -> bytes:
    """A run of ``count`` numbers of so many bits, filled up to a group of eight."""
    groups = -(-count // 8)
    return varint(groups << 1 | 1) + data.ljust(groups * bits, b"\0")
