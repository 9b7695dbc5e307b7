"""The metadata of a Parquet file of ours: page headers, row groups, footer.

Source: github.com/apache/parquet-format, src/main/thrift/parquet.thrift, whose field numbers and
enumerations stand here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache

import pyarrow as pa

from tracer import __version__
from tracer.store.thrift import (
    Value,
    begun,
    binary,
    boolean,
    i8,
    i16,
    i32,
    i64,
    listed,
    struct,
)

__all__ = ["Chunk", "data_page_header", "dictionary_page_header", "footer", "row_group"]

_ENCODINGS = {
    "PLAIN": 0,
    "RLE": 3,
    "DELTA_BINARY_PACKED": 5,
    "RLE_DICTIONARY": 8,
    "BYTE_STREAM_SPLIT": 9,
}
_DATA_PAGE, _DICTIONARY_PAGE = i32(0), i32(2)
_REQUIRED, _OPTIONAL, _REPEATED = 0, 1, 2
_INT32, _INT64, _FLOAT, _DOUBLE, _BYTE_ARRAY = 1, 2, 4, 5, 6
_ZSTD = 6
_FORMAT_VERSION = 2
_EMPTY = struct({})
# Physical type, converted type and logical type (what newer readers look at) of a column.
_TYPES: Mapping[pa.DataType, tuple[int, int | None, Value | None]] = {
    pa.string(): (_BYTE_ARRAY, 0, struct({1: _EMPTY})),
    pa.int16(): (_INT32, 16, struct({10: struct({1: i8(16), 2: boolean(True)})})),
    pa.int32(): (_INT32, None, None),
    pa.int64(): (_INT64, None, None),
    pa.float32(): (_FLOAT, None, None),
    pa.float64(): (_DOUBLE, None, None),
}
_LIST = (3, struct({3: _EMPTY}))


@dataclass(frozen=True, slots=True)
class Chunk:
    """One column of one row group, encoded.

    data: its pages, one after the other; raw_size: their bytes before compression
    num_values: entries, those inside lists counted
    dictionary_size: bytes of the dictionary page, which comes first; 0 without
    bounds: least and largest value in plain encoding, where readers may prune by them
    """

    data: bytes
    raw_size: int
    num_values: int
    encodings: Sequence[str]
    dictionary_size: int = 0
    bounds: tuple[bytes, bytes] | None = None


def data_page_header(raw: int, packed: int, num_values: int, encoding: str) -> bytes:
    """Header of a data page (version 1); ``raw`` and ``packed`` are its bytes, then and now."""
    page = (12, begun({1: i32(num_values)}) + _data_page_rest(encoding))
    return struct({1: _DATA_PAGE, 2: i32(raw), 3: i32(packed), 5: page})[1]


@cache
def _data_page_rest(encoding: str) -> bytes:
    """How values and levels are encoded, behind the number of values."""
    levels = i32(_ENCODINGS["RLE"])
    return begun({2: i32(_ENCODINGS[encoding]), 3: levels, 4: levels}, 1) + b"\0"


def dictionary_page_header(raw: int, packed: int, num_values: int) -> bytes:
    """Header of a dictionary page."""
    page = struct({1: i32(num_values), 2: i32(_ENCODINGS["PLAIN"])})
    return struct({1: _DICTIONARY_PAGE, 2: i32(raw), 3: i32(packed), 7: page})[1]


def row_group(
    schema: pa.Schema, columns: Mapping[str, Chunk], num_rows: int, number: int, offset: int
) -> Value:
    """The row group whose columns lie one after the other from byte ``offset``, in order."""
    chunks = []
    begin = offset
    for field in schema:
        chunk = columns[field.name]
        chunks.append(_column_chunk(field, chunk, begin))
        begin += len(chunk.data)
    raw_size = sum(chunk.raw_size for chunk in columns.values())
    return struct(
        {
            1: listed(chunks),
            2: i64(raw_size),
            3: i64(num_rows),
            5: i64(offset),
            6: i64(begin - offset),
            7: i16(number),
        }
    )


def footer(schema: pa.Schema, num_rows: int, groups: Sequence[Value]) -> bytes:
    """What stands at the end of the file, without its length and the magic number."""
    root = struct({3: i32(_REQUIRED), 4: binary("schema"), 5: i32(len(schema))})
    elements = [root, *(element for field in schema for element in _schema_elements(field))]
    by_type = struct({1: _EMPTY})
    return struct(
        {
            1: i32(_FORMAT_VERSION),
            2: listed(elements),
            3: i64(num_rows),
            4: listed(groups) if groups else (9, bytes([12])),
            6: binary(f"moe-tracer version {__version__}"),
            7: listed([by_type] * len(schema)),
        }
    )[1]


def _schema_elements(field: pa.Field) -> list[Value]:
    if not pa.types.is_list(field.type):
        return [_leaf(field.type, field.name)]
    converted, logical = _LIST
    outer = {
        3: i32(_OPTIONAL),
        4: binary(field.name),
        5: i32(1),
        6: i32(converted),
        10: logical,
    }
    inner = {3: i32(_REPEATED), 4: binary("list"), 5: i32(1)}
    return [struct(outer), struct(inner), _leaf(field.type.value_type, "element")]


def _leaf(of: pa.DataType, name: str) -> Value:
    physical, converted, logical = _TYPES[of]
    return struct(
        {
            1: i32(physical),
            3: i32(_OPTIONAL),
            4: binary(name),
            6: None if converted is None else i32(converted),
            10: logical,
        }
    )


def _column_chunk(field: pa.Field, chunk: Chunk, offset: int) -> Value:
    # What differs from layer to layer; the rest is made once.
    own = begun(
        {
            5: i64(chunk.num_values),
            6: i64(chunk.raw_size),
            7: i64(len(chunk.data)),
            9: i64(offset + chunk.dictionary_size),
            11: i64(offset) if chunk.dictionary_size else None,
            12: None if chunk.bounds is None else _statistics(chunk.bounds),
        },
        4,
    )
    # The first field once held where a copy of the metadata lies; there is none.
    return 12, _NO_COPY + _described(field, tuple(chunk.encodings)) + own + b"\0\0"


_NO_COPY = begun({2: i64(0)})


@cache
def _described(field: pa.Field, encodings: tuple[str, ...]) -> bytes:
    """Type, encodings, name and compression of a column: how its metadata begins."""
    is_list = pa.types.is_list(field.type)
    path = (field.name, "list", "element") if is_list else (field.name,)
    metadata = begun(
        {
            1: i32(_TYPES[field.type.value_type if is_list else field.type][0]),
            2: listed([i32(_ENCODINGS[name]) for name in encodings]),
            3: listed([binary(part) for part in path]),
            4: i32(_ZSTD),
        }
    )
    return begun({3: (12, metadata)}, 2)


@lru_cache(maxsize=64)  # layers share most columns
def _statistics(bounds: tuple[bytes, bytes]) -> Value:
    """Of a column without nulls."""
    low, high = (binary(value) for value in bounds)
    return struct({3: i64(0), 5: high, 6: low})
