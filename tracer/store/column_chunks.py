"""Columns of one row group without lists, encoded as Parquet wants them; what pages are made of.

Values that repeat are runs of dictionary indices: how often each stands in a row is known, which
pyarrow would have to find out. Floats are byte-split, other numbers are left to pyarrow. All is
compressed with zstd level 1.
Source of the format: github.com/apache/parquet-format, README.md and Encodings.md.
"""

import io
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from tracer.store.kernels import split_bytes
from tracer.store.parquet_metadata import Chunk, data_page_header, dictionary_page_header
from tracer.store.thrift import varint

__all__ = [
    "Runs",
    "byte_split",
    "constant_chunk",
    "data_page",
    "dictionary_page",
    "levels",
    "number_chunk",
    "plain_ints",
]

_ZSTD_LEVEL = 1  # level 3 saves 1 % of the size for a tenth of the speed
# Beyond its dictionary's limit pyarrow spells every number out, row by row.
_MAX_DICTIONARY = 1 << 28
_PAGE_BYTES = 1 << 20  # before compression
_MAX_BOUND = 4096  # bytes of a text; pyarrow's limit
_SEVEN_BITS = 7
_of_thread = threading.local()


@dataclass(frozen=True, slots=True)
class Runs:
    """A column of values that repeat: ``lengths[i]`` rows of ``values[numbers[i]]``, in order.

    A length may be 0.

    values: texts, or whole numbers of 32 bits
    """

    values: Sequence[str] | Sequence[int]
    numbers: npt.NDArray[np.integer]
    lengths: npt.NDArray[np.integer]

    def chunk(self) -> Chunk:
        """The column; one row or more."""
        there = self.lengths > 0
        lengths = self.lengths[there].astype(np.int64)
        used, numbers = np.unique(self.numbers[there], return_inverse=True)
        values = [self.values[number] for number in used]
        plain = b"".join(_dictionary_entry(value) for value in values)
        dictionary, raw_dictionary = dictionary_page(plain, len(values))
        rows = int(lengths.sum())
        bits = max(1, (len(values) - 1).bit_length())
        body = _all_there(rows) + bytes([bits]) + _run_bytes(numbers, lengths, -(-bits // 8))
        page, raw_page = data_page(body, rows, "RLE_DICTIONARY")
        # In UTF-8 texts are ordered as their bytes are.
        low, high = _bound(min(values)), _bound(max(values))
        return Chunk(
            dictionary + page,
            raw_dictionary + raw_page,
            rows,
            ("PLAIN", "RLE", "RLE_DICTIONARY"),
            len(dictionary),
            (low, high) if max(len(low), len(high)) <= _MAX_BOUND else None,
        )


def number_chunk(numbers: npt.NDArray[Any], encoding: str) -> Chunk:
    """A column of plain numbers.

    Args:
        numbers: one or more, whole or not, of 32 or 64 bits.
        encoding: BYTE_STREAM_SPLIT, of floats without a NaN; of whole numbers DELTA_BINARY_PACKED,
            or RLE_DICTIONARY where few numbers repeat.
    """
    if encoding == "BYTE_STREAM_SPLIT":
        return _float_chunk(numbers)
    dictionary = encoding == "RLE_DICTIONARY"
    sink = io.BytesIO()
    pq.write_table(
        pa.table({"numbers": numbers}),
        sink,
        row_group_size=len(numbers),
        compression="zstd",
        compression_level=_ZSTD_LEVEL,
        store_schema=False,
        use_dictionary=dictionary,
        column_encoding=None if dictionary else encoding,
        dictionary_pagesize_limit=_MAX_DICTIONARY,
    )
    column = pq.read_metadata(sink).row_group(0).column(0)
    pages = column.data_page_offset
    begin = column.dictionary_page_offset if column.has_dictionary_page else pages
    bounds, size = column.statistics, numbers.itemsize
    return Chunk(
        sink.getvalue()[begin : begin + column.total_compressed_size],
        column.total_uncompressed_size,
        column.num_values,
        column.encodings,
        pages - begin,
        tuple(bound.to_bytes(size, "little", signed=True) for bound in (bounds.min, bounds.max)),
    )


def _float_chunk(numbers: npt.NDArray[np.floating]) -> Chunk:
    """Floats in pages of about 1 MiB, which their readers hold whole."""
    data, raw = bytearray(), 0
    step = _PAGE_BYTES // numbers.itemsize
    for first in range(0, len(numbers), step):
        part = numbers[first : first + step]
        body = _all_there(len(part)) + byte_split(part)
        page, raw_page = data_page(body, len(part), "BYTE_STREAM_SPLIT")
        data += page
        raw += raw_page
    # The two zeros are equal: as the least one the format wants the negative, and as the largest
    # the positive.
    low, high = numbers.min(), numbers.max()
    low, high = low or -abs(low), high or abs(high)
    bounds = (low.tobytes(), high.tobytes())
    return Chunk(bytes(data), raw, len(numbers), ("RLE", "BYTE_STREAM_SPLIT"), 0, bounds)


def byte_split(numbers: npt.NDArray[np.floating]) -> bytes:
    """First bytes of all numbers, then the second ones, ..."""
    size = numbers.itemsize
    bits = numbers.view(np.uint32 if size == np.float32().itemsize else np.uint64)
    planes = np.zeros((size, len(numbers)), dtype=np.uint8)
    # The lower bytes of bfloat16 numbers are zero, and so are those of short sums of them.
    used = int(np.bitwise_or.reduce(bits))
    split_bytes(bits, next((byte for byte in range(size) if used >> 8 * byte & 0xFF), size), planes)
    return planes.tobytes()


def constant_chunk(number: int, rows: int) -> Chunk:
    """One number in every row: a dictionary of one entry and one run of its index."""
    plain = plain_ints([number])
    dictionary, raw_dictionary = dictionary_page(plain, 1)
    body = _all_there(rows) + b"\1" + varint(rows << 1) + b"\0"  # indices of one bit
    page, raw_page = data_page(body, rows, "RLE_DICTIONARY")
    return Chunk(
        dictionary + page,
        raw_dictionary + raw_page,
        rows,
        ("PLAIN", "RLE", "RLE_DICTIONARY"),
        len(dictionary),
        (plain, plain),
    )


def _bound(value: str | int) -> bytes:
    """A text or a whole number of 32 bits as metadata has it."""
    return value.encode() if isinstance(value, str) else plain_ints([value])


def _dictionary_entry(value: str | int) -> bytes:
    """The same as dictionaries have it: texts with their length."""
    encoded = _bound(value)
    return len(encoded).to_bytes(4, "little") + encoded if isinstance(value, str) else encoded


def _run_bytes(numbers: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64], size: int) -> bytes:
    """Runs of ``lengths`` rows each: twice the length as a varint, the number in so many bytes."""
    heads = lengths << 1
    most = max(1, -(-int(heads.max()).bit_length() // _SEVEN_BITS))
    encoded = np.zeros((len(heads), most + size), dtype=np.uint8)
    there = np.ones(encoded.shape, dtype=np.bool_)
    for place in range(most):
        rest = heads >> (_SEVEN_BITS * place)
        there[:, place] = (rest > 0) | (place == 0)
        encoded[:, place] = rest & 0x7F | np.where(rest >> _SEVEN_BITS, 0x80, 0)
    for place in range(size):
        encoded[:, most + place] = numbers >> (8 * place) & 0xFF
    return encoded[there].tobytes()


def _all_there(rows: int) -> bytes:
    """Definition levels of a plain column without nulls."""
    return levels(varint(rows << 1) + b"\1")


def levels(runs: bytes) -> bytes:
    """Runs of levels as a page begins with them."""
    return len(runs).to_bytes(4, "little") + runs


def plain_ints(numbers: Iterable[int]) -> bytes:
    """32-bit integers in plain encoding."""
    return np.array(list(numbers), dtype="<i4").tobytes()


def data_page(body: bytes, num_values: int, encoding: str) -> tuple[bytes, int]:
    """A page of levels and values with its header, and its bytes before compression."""
    packed = _compressed(body)
    header = data_page_header(len(body), len(packed), num_values, encoding)
    return header + packed, len(header) + len(body)


@lru_cache(maxsize=64)  # those of layers are alike
def dictionary_page(plain: bytes, entries: int) -> tuple[bytes, int]:
    """A dictionary with its header, and its bytes before compression."""
    packed = _compressed(plain)
    header = dictionary_page_header(len(plain), len(packed), entries)
    return header + packed, len(header) + len(plain)


def _compressed(body: bytes) -> bytes:
    """With this thread's compressor: making one takes longer than a small page does."""
    compress = getattr(_of_thread, "compress", None)
    if compress is None:
        compress = _of_thread.compress = zstandard.ZstdCompressor(level=_ZSTD_LEVEL).compress
    packed: bytes = compress(body)
    return packed
