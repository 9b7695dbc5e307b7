"""Bytes from the protocol's description: doc/specs/thrift-compact-protocol.md of Apache Thrift."""

import pytest

from tracer.store.thrift import binary, boolean, i8, i16, i32, i64, listed, struct, varint


@pytest.mark.parametrize(
    ("number", "encoded"), [(0, "00"), (127, "7f"), (128, "8001"), (300, "ac02"), (50399, "df8903")]
)
def test_varints_hold_seven_bits_a_byte(number, encoded):
    assert varint(number).hex() == encoded


@pytest.mark.parametrize(
    ("number", "encoded"),
    [(0, "00"), (-1, "01"), (1, "02"), (-2, "03"), (2147483647, "feffffff0f")],
)
def test_numbers_are_zigzag_varints(number, encoded):
    for kind in (i16, i32, i64):
        assert kind(number)[1].hex() == encoded


def test_a_struct_names_fields_by_their_distance():
    """Field 1 is an i32 (5), 2 left out, 4 true (1), 5 false (2), 6 a text (8); 0 ends it."""
    fields = {1: i32(3), 2: None, 4: boolean(True), 5: boolean(False), 6: binary("hé")}
    assert struct(fields) == (12, bytes.fromhex("15 06 31 12 18 03 68c3a9 00"))


def test_a_list_of_fifteen_spells_its_length_out():
    assert listed([i32(1), i32(2)]) == (9, bytes.fromhex("25 02 04"))
    assert listed([i8(7)] * 15) == (9, bytes.fromhex("f3 0f") + b"\7" * 15)
    inner = struct({1: i16(1)})
    assert struct({7: listed([inner])}) == (12, bytes.fromhex("79 1c 14 02 00 00"))
