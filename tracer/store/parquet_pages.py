"""How large a Parquet file of a stranger gets, from the headers of its pages: nothing is unpacked.

The footer alone cannot say: it may lie, and a billion equal values in a dictionary column are a
few bytes by its own count. A page says how many values it holds and what it unpacks to, and a
reader makes neither more of it nor less.

Source: github.com/apache/parquet-format, src/main/thrift/parquet.thrift (`PageHeader`), and
github.com/apache/thrift, doc/specs/thrift-compact-protocol.md.
"""

import mmap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

__all__ = ["PageError", "unpacked_size"]

# Common writers make pages of 1 to 8 MiB. A reader holds one page of each column whole.
MOST_PAGE_BYTES = 256 * 1024 * 1024
# A value that is not of its column's width takes many times it: nothing we read is wider.
_MOST_WIDTH = 4096
_LEVELS = 4  # definition and repetition level of a value, as readers hold them
_WIDTHS = {"BOOLEAN": 1, "INT32": 4, "INT64": 8, "INT96": 12, "FLOAT": 4, "DOUBLE": 8}
_OFFSET = 8  # of a text, or its number in a dictionary
_DICTIONARY_PAGE = 2
_DATA_V1, _DATA_V2 = 5, 8
# Each value says how much it shares with the one before: short pages make any amount of text.
_DELTA_BYTE_ARRAY = 7
_TRUE, _FALSE, _BYTE, _I64, _DOUBLE, _BINARY, _LIST, _SET, _STRUCT = 1, 2, 3, 6, 7, 8, 9, 10, 12
_DEEPEST = 8


class PageError(ValueError):
    """What the file says of itself cannot be."""


def unpacked_size(path: Path, file: pq.ParquetFile, columns: Sequence[str]) -> int:
    """Bytes that some columns come to in memory, texts counted once per dictionary entry.

    Raises:
        PageError: footer and pages contradict each other or the file's size, or a page or value
            is beyond what writers make.
    """
    metadata = file.metadata
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    if metadata.num_rows != sum(group.num_rows for group in groups):
        raise PageError(f"{metadata.num_rows:,} rows by its footer, its row groups have others")
    total = packed = 0
    with path.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as data:
        for group in groups:
            for number in range(group.num_columns):
                chunk = group.column(number)
                name = chunk.path_in_schema
                found = [one for one in columns if name == one or name.startswith(f"{one}.")]
                if not found:
                    continue
                column = metadata.schema.column(number)
                if name not in columns and column.physical_type == "BYTE_ARRAY":
                    # Read without their dictionary: no page says how long they get.
                    raise PageError(f"column {found[0]} is not lists of numbers")
                flat = column.max_repetition_level == 0
                if flat and chunk.num_values != group.num_rows:
                    raise PageError(f"column {name} has other rows than its row group")
                packed += chunk.total_compressed_size
                if packed > len(data):
                    raise PageError("its columns are longer than the file")
                total += _chunk_size(data, name, column, chunk)
    return total


def _chunk_size(data: mmap.mmap, name: str, column: Any, chunk: Any) -> int:
    width = _width(name, column)
    at = chunk.data_page_offset
    if chunk.has_dictionary_page and 0 < chunk.dictionary_page_offset < at:
        at = chunk.dictionary_page_offset
    end = at + chunk.total_compressed_size
    if not 0 <= at <= end <= len(data):
        raise PageError(f"column {name} lies beyond the end of the file")
    values = unpacked = 0
    while at < end:
        header, at = _Header(data, at, end).read()
        raw, size = header.get(2), header.get(3)
        if not isinstance(raw, int) or not isinstance(size, int) or not 0 <= size <= end - at:
            raise PageError(f"a page of column {name} is longer than its column")
        if not 0 <= raw <= MOST_PAGE_BYTES:
            raise PageError(
                f"a page of column {name} unpacks to {raw:,} bytes, at most {MOST_PAGE_BYTES:,}"
                " are read"
            )
        at += size
        unpacked += raw
        if header.get(1) == _DICTIONARY_PAGE:
            continue
        facts = header.get(_DATA_V1) or header.get(_DATA_V2) or {}
        encoding = facts.get(2 if _DATA_V1 in header else 4)
        if encoding == _DELTA_BYTE_ARRAY:
            raise PageError(f"column {name} is of the encoding DELTA_BYTE_ARRAY, which is not read")
        count = facts.get(1, 0)
        if not isinstance(count, int) or count < 0:
            raise PageError(f"a page of column {name} has no number of values")
        values += count
    if values != chunk.num_values:
        raise PageError(
            f"column {name} has {chunk.num_values:,} values by the footer, its pages {values:,}"
        )
    return unpacked + values * (width + _LEVELS)


def _width(name: str, column: Any) -> int:
    if column.physical_type == "FIXED_LEN_BYTE_ARRAY":
        if not 0 < column.length <= _MOST_WIDTH:
            raise PageError(f"column {name} has values of {column.length:,} bytes")
        return int(column.length)
    return _WIDTHS.get(column.physical_type, _OFFSET)


class _Header:
    """One struct of Thrift's compact protocol: its whole numbers and the structs in it."""

    def __init__(self, data: mmap.mmap, at: int, end: int) -> None:
        self._data, self._at, self._end = data, at, end

    def read(self) -> tuple[dict[int, Any], int]:
        """Fields by number, and where the struct ends."""
        return self._struct(0), self._at

    def _byte(self) -> int:
        if self._at >= self._end:
            raise PageError("a page header has no end")
        self._at += 1
        return self._data[self._at - 1]

    def _varint(self) -> int:
        number = shift = 0
        while True:
            byte = self._byte()
            number |= (byte & 0x7F) << shift
            if byte < 0x80:  # noqa: PLR2004 - the last one
                return number
            shift += 7
            if shift > 63:  # noqa: PLR2004 - bits
                raise PageError("a page header has a number that is too long")

    def _whole(self) -> int:
        number = self._varint()
        return (number >> 1) ^ -(number & 1)

    def _struct(self, depth: int) -> dict[int, Any]:
        if depth > _DEEPEST:
            raise PageError("a page header is nested too deep")
        fields: dict[int, Any] = {}
        number = 0
        while head := self._byte():
            number = number + (head >> 4) if head >> 4 else self._whole()
            fields[number] = self._value(head & 0x0F, depth)
        return fields

    def _value(self, kind: int, depth: int) -> Any:
        if kind in (_TRUE, _FALSE):
            return kind == _TRUE
        if _BYTE < kind <= _I64:
            return self._whole()
        if kind == _STRUCT:
            return self._struct(depth + 1)
        skipped = {_BYTE: 1, _DOUBLE: 8}.get(kind)
        if kind == _BINARY:
            skipped = self._varint()
        if skipped is None:  # a list, set or map: no page header has one
            raise PageError("a page header holds what none has")
        if skipped > self._end - self._at:
            raise PageError("a page header has no end")
        self._at += skipped
        return None
