"""Thrift's compact protocol, as much as the metadata of a Parquet file needs; writing only.

Source: github.com/apache/thrift, doc/specs/thrift-compact-protocol.md.
"""

from collections.abc import Mapping, Sequence

__all__ = [
    "Value",
    "begun",
    "binary",
    "boolean",
    "i8",
    "i16",
    "i32",
    "i64",
    "listed",
    "struct",
    "varint",
]

# A value is its type's number in the protocol and its bytes.
Value = tuple[int, bytes]

_ONE_BYTE, _TWO_BYTES, _THREE_BYTES = 1 << 7, 1 << 14, 1 << 21
_SHORT_LIST = 15


def varint(number: int) -> bytes:
    """A number that is not negative: seven bits a byte, lowest first."""
    if number < _ONE_BYTE:
        return bytes((number,))
    if number < _TWO_BYTES:
        return bytes((number & 0x7F | 0x80, number >> 7))
    if number < _THREE_BYTES:
        return bytes((number & 0x7F | 0x80, number >> 7 & 0x7F | 0x80, number >> 14))
    return bytes((number & 0x7F | 0x80, number >> 7 & 0x7F | 0x80)) + varint(number >> 14)


def boolean(value: bool) -> Value:
    """True or false; its type says which."""
    return (1 if value else 2), b""


def i8(number: int) -> Value:
    """One byte, 0..127."""
    return 3, bytes([number])


def i16(number: int) -> Value:
    """A whole number of 16 bits."""
    return 4, varint(_zigzag(number))


def i32(number: int) -> Value:
    """A whole number of 32 bits."""
    return 5, varint(_zigzag(number))


def i64(number: int) -> Value:
    """A whole number of 64 bits."""
    return 6, varint(_zigzag(number))


def binary(data: bytes | str) -> Value:
    """Bytes, or text as UTF-8."""
    data = data.encode() if isinstance(data, str) else data
    return 8, varint(len(data)) + data


def listed(items: Sequence[Value]) -> Value:
    """One value or more, all of one type."""
    kind, size = items[0][0], len(items)
    short = size < _SHORT_LIST
    head = bytes([size << 4 | kind]) if short else bytes([0xF0 | kind]) + varint(size)
    return 9, head + b"".join(data for _, data in items)


def struct(fields: Mapping[int, Value | None]) -> Value:
    """Fields by number, 1 to 15 apart, ascending; None leaves one out."""
    return 12, begun(fields) + b"\0"


def begun(fields: Mapping[int, Value | None], last: int = 0) -> bytes:
    """A part of a struct, whose end is missing: the fields behind number ``last``."""
    encoded = bytearray()
    for number, value in fields.items():
        if value is not None:
            encoded.append((number - last) << 4 | value[0])
            encoded += value[1]
            last = number
    return bytes(encoded)


def _zigzag(number: int) -> int:
    """0, -1, 1, -2, ... as 0, 1, 2, 3, ..."""
    return number << 1 if number >= 0 else (-number << 1) - 1
