"""Loops over the choices of a layer, compiled: each passes over them once and holds no GIL.

NumPy would pass over them some thirty times. The writer runs beside an engine's own thread, which
waits whenever the GIL is held here. Here choices are put in order and values are encoded;
``sum_kernels`` adds them up.
"""

import numpy as np
import numpy.typing as npt

from tracer.store.compiled import Kernel

__all__ = ["number_values", "pack_bits", "sort_rows", "split_bytes"]

_SIGN, _NO_SIGN = 0x8000_0000, 0x7FFF_FFFF
_INFINITE = 0x7F80_0000  # the exponent of what is not a finite number
_ID_BITS, _ID = 16, 0xFFFF

Ints = npt.NDArray[np.integer]


@Kernel
def sort_rows(
    expert_ids: Ints,
    weight_bits: Ints,
    shift: int,
    num_experts: int,
    sorted_ids: npt.NDArray[np.int16],
    sorted_bits: npt.NDArray[np.uint32],
) -> bool:
    """Check the choices of each row and order them by descending weight, then ascending id.

    Args:
        expert_ids: uint8 or int16 [n, layers, k].
        weight_bits: uint16 or uint32 [n, layers, k].
        shift: ``weight_bits`` shifted left by it are float32 numbers.
        num_experts: at most 32768.
        sorted_ids: [layers, n, k], to write to.
        sorted_bits: [layers, n, k], to write to; bits of float32 numbers.

    Returns:
        False at an id outside 0..num_experts-1, an id twice in a choice or a weight that is not
        finite; what follows is not written then.
    """
    rows, layers, width = expert_ids.shape
    chosen_by = np.zeros(num_experts, np.int64)  # number of the last choice with an expert
    keys = np.empty(width, np.int64)
    for row in range(rows):
        for layer in range(layers):
            choice = row * layers + layer + 1
            for column in range(width):
                expert = np.int64(expert_ids[row, layer, column])
                bits = np.int64(weight_bits[row, layer, column]) << shift
                if expert < 0 or expert >= num_experts or bits & _INFINITE == _INFINITE:
                    return False
                if chosen_by[expert] == choice:
                    return False
                chosen_by[expert] = choice
                # Bits that ascend where numbers descend, and the id. Mostly in order already,
                # since many routers return the largest first.
                if not bits & _SIGN:
                    bits ^= _NO_SIGN
                key = bits << _ID_BITS | expert
                place = column
                while place > 0 and keys[place - 1] > key:
                    keys[place] = keys[place - 1]
                    place -= 1
                keys[place] = key
            for column in range(width):
                key = keys[column]
                bits = key >> _ID_BITS
                if not bits & _SIGN:
                    bits ^= _NO_SIGN
                sorted_ids[layer, row, column] = key & _ID
                sorted_bits[layer, row, column] = bits
    return True


@Kernel
def number_values(
    values: npt.NDArray[np.int32], places: npt.NDArray[np.uint16], numbers: npt.NDArray[np.uint16]
) -> None:
    """Number the different values in ascending order, from 0, and write the number of each.

    Args:
        values: below the length of ``places``.
        places: zeros, to write to: the number of a value that occurs, and 1. At most 65535.
        numbers: of ``values``, to write to.
    """
    for value in values:
        places[value] = 1
    count = 0
    for value in range(len(places)):
        if places[value]:
            count += 1
            places[value] = count
    for index in range(len(values)):
        numbers[index] = places[values[index]] - 1


@Kernel
def pack_bits(numbers: npt.NDArray[np.uint16], bits: int, packed: npt.NDArray[np.uint8]) -> None:
    """Write ``bits`` of each number, the lowest first, one after the other without gaps.

    Args:
        numbers: below ``1 << bits``.
        bits: at most 16.
        packed: as many bytes as they fill, to write to.
    """
    waiting, filled, place = np.uint64(0), np.uint64(0), 0
    for index in range(len(numbers)):
        waiting |= np.uint64(numbers[index]) << filled
        filled += np.uint64(bits)
        while filled >= np.uint64(8):
            packed[place] = waiting & np.uint64(0xFF)
            waiting >>= np.uint64(8)
            filled -= np.uint64(8)
            place += 1
    if filled:
        packed[place] = waiting


@Kernel
def split_bytes(bits: Ints, first: int, planes: npt.NDArray[np.uint8]) -> None:
    """Write byte i of every number into row i of ``planes``, from the ``first`` on.

    Args:
        bits: uint32 or uint64 [n].
        first: bytes before it are left as they are.
        planes: [4 or 8, n], lowest byte first.
    """
    for plane in range(first, len(planes)):
        row, shift = planes[plane], bits.dtype.type(8 * plane)
        for place in range(len(bits)):
            row[place] = bits[place] >> shift
