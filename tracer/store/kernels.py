"""Loops over the choices of a layer, compiled: each passes over them once and holds no GIL.

NumPy would pass over them some thirty times. The writer runs beside an engine's own thread, which
waits whenever the GIL is held here. Sums add in the order of the rows, so that files are the same
wherever they are made.

Compiled at the first call, for a second or two. numba keeps the machine code in a cache beside
this file or, where that is read-only, in ``NUMBA_CACHE_DIR`` or the user's cache folder. Where none
of them can be written, each process compiles for itself.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numba
import numpy as np
import numpy.typing as npt
from llvmlite import ir
from llvmlite.binding import ffi
from numba.extending import intrinsic

__all__ = [
    "NUM_PHASES",
    "DomainSums",
    "RequestSums",
    "gather_sums",
    "number_values",
    "pack_bits",
    "sort_rows",
    "split_bytes",
    "sum_choices",
]

# Prompt, last prompt token, generated: see ``tracer.store.rollup.PHASES``.
NUM_PHASES = 3
_PROMPT, _LAST, _GENERATED = range(NUM_PHASES)
# What a cell counts, as one vector; the fourth place makes it a power of two. And its bounds.
_SUM, _SQUARE, _COUNT = 0, 1, 2
_CELL = 4
_HIGH, _LOW = 0, 1  # the least weight with its sign turned: both are maxima

_SIGN, _NO_SIGN = 0x8000_0000, 0x7FFF_FFFF
_INFINITE = 0x7F80_0000  # the exponent of what is not a finite number
_ID_BITS, _ID = 16, 0xFFFF
_F64, _F32 = 8, 4  # bytes

Ints = npt.NDArray[np.integer]
Floats = npt.NDArray[np.floating]


class RequestSums(NamedTuple):
    """Sums of the choices that requests made in a layer: one entry per phase and expert.

    Entries of a request and phase lie together, experts ascending. There is room for one more
    than it can have, and what lies behind those it has means nothing.

    starts: int64 [requests * phases], where the entries of each start
    lengths: int64 [requests * phases], how many there are
    expert_ids: int16; counts: int32; sums: float64
    """

    starts: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.int64]
    expert_ids: npt.NDArray[np.int16]
    counts: npt.NDArray[np.int32]
    sums: npt.NDArray[np.float64]


class DomainSums(NamedTuple):
    """The same of domains, whose entries follow each other without gaps, layer after layer.

    expert_ids: int16; counts: int64
    sums, squares: float64; lows, highs: float32, least and largest weights
    """

    expert_ids: npt.NDArray[np.int16]
    counts: npt.NDArray[np.int64]
    sums: npt.NDArray[np.float64]
    squares: npt.NDArray[np.float64]
    lows: npt.NDArray[np.float32]
    highs: npt.NDArray[np.float32]


def _mend_llvmlite() -> None:
    """Let llvmlite's handle of its library say that it has no ``__dict__``.

    It makes a function of any name that it is asked for. vLLM asks everything in every loaded
    module for its ``__dict__`` when a CPU engine starts (0.32, ``triton_utils.dispatcher``) and
    fails at that function.
    """
    handle = getattr(ffi, "_lib_wrapper", None)
    find = getattr(handle, "__getattr__", None)
    if handle is None or find is None:  # another llvmlite
        return

    def find_function(self: Any, name: str) -> Any:
        if name == "__dict__":
            raise AttributeError(name)
        return find(self, name)

    handle.__getattr__ = find_function


_mend_llvmlite()


class _Kernel:
    """A compiled function that runs whatever becomes of the cache of its machine code."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        try:
            self._compiled = numba.njit(cache=True, nogil=True)(function)
        except RuntimeError:  # no folder to keep it in
            self._compiled = numba.njit(nogil=True)(function)

    def __call__(self, *arguments: Any) -> Any:
        try:
            return self._compiled(*arguments)
        except Exception:  # noqa: BLE001 - a full disk, a damaged file; the loops raise nothing
            self._compiled = numba.njit(nogil=True)(self._function)
            return self._compiled(*arguments)


@_Kernel
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


@_Kernel
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


@_Kernel
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


@_Kernel
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


@intrinsic
def _add(_: Any, cells: Any, place: Any, weight: Any) -> Any:
    """Add a weight, its square and a one to a cell: one vector, which numba makes of no loop."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> Any:
        vector = ir.VectorType(ir.DoubleType(), _CELL)
        wide = builder.fpext(values[2], ir.DoubleType())
        added = ir.Constant(vector, [0.0, 0.0, 1.0, 0.0])
        added = builder.insert_element(added, wide, _index(_SUM))
        added = builder.insert_element(added, builder.fmul(wide, wide), _index(_SQUARE))
        cell = _place(context, builder, signature.args[0], values[0], values[1], vector)
        _store(builder, cell, builder.fadd(_load(builder, cell, _F64), added), _F64)
        return context.get_dummy_value()

    return numba.types.void(cells, place, weight), generate


@intrinsic
def _widen(_: Any, bounds: Any, place: Any, weight: Any) -> Any:
    """Let the bounds of a cell hold a weight."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> Any:
        vector = ir.VectorType(ir.FloatType(), 2)
        weights = ir.Constant(vector, ir.Undefined)
        weights = builder.insert_element(weights, values[2], _index(_HIGH))
        weights = builder.insert_element(weights, builder.fneg(values[2]), _index(_LOW))
        bound = _place(context, builder, signature.args[0], values[0], values[1], vector)
        old = _load(builder, bound, _F32)
        larger = builder.fcmp_ordered(">", weights, old)
        _store(builder, bound, builder.select(larger, weights, old), _F32)
        return context.get_dummy_value()

    return numba.types.void(bounds, place, weight), generate


@intrinsic
def _carry(_: Any, cells: Any, place: Any, to: Any) -> Any:
    """Add a cell to the one at the same place of ``to``, and clear it."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> Any:
        vector = ir.VectorType(ir.DoubleType(), _CELL)
        cell = _place(context, builder, signature.args[0], values[0], values[1], vector)
        sums = _place(context, builder, signature.args[2], values[2], values[1], vector)
        added = builder.fadd(_load(builder, sums, _F64), _load(builder, cell, _F64))
        _store(builder, sums, added, _F64)
        _store(builder, cell, ir.Constant(vector, [0.0] * _CELL), _F64)
        return context.get_dummy_value()

    return numba.types.void(cells, place, to), generate


def _index(number: int) -> ir.Constant:
    return ir.Constant(ir.IntType(32), number)


def _place(
    context: Any, builder: ir.IRBuilder, of: Any, array: Any, place: Any, vector: ir.VectorType
) -> Any:
    """Address of one of the vectors that an array of type ``of`` is made of."""
    data = context.make_array(of)(context, builder, array).data
    return builder.gep(builder.bitcast(data, vector.as_pointer()), [place])


def _load(builder: ir.IRBuilder, address: Any, align: int) -> Any:
    loaded = builder.load(address)
    loaded.align = align  # NumPy's, which is not that of a vector
    return loaded


def _store(builder: ir.IRBuilder, address: Any, value: Any, align: int) -> None:
    builder.store(value, address).align = align


@_Kernel
def sum_choices(
    expert_ids: npt.NDArray[np.int16],
    gate_weights: npt.NDArray[np.float32],
    row_ends: npt.NDArray[np.int64],
    requests: npt.NDArray[np.int64],
    request_ends: npt.NDArray[np.int64],
    num_experts: int,
    of_requests: RequestSums,
    of_domains: DomainSums,
    size: int,
    lengths: npt.NDArray[np.int64],
) -> None:
    """Count and sum the choices of one layer, by request and by domain, phase and expert.

    Args:
        expert_ids: [n, k], contiguous, below ``num_experts``.
        gate_weights: [n, k], contiguous.
        row_ends: [requests * phases], ascending: the row that each request's phase ends before.
        requests: numbers of all requests, those of a domain together.
        request_ends: [domains], ascending: where in ``requests`` each domain ends.
        num_experts: of the layer.
        of_requests: to write to, but for ``starts``. The last prompt token has entries of its own
            and is counted in the prompt too.
        of_domains: to write to.
        size: entries that ``of_domains`` has already.
        lengths: [domains, phases], to write to: entries of each.
    """
    width = expert_ids.shape[1]
    own = np.zeros((NUM_PHASES, num_experts, _CELL), np.float64)
    whole = np.zeros((NUM_PHASES, num_experts, _CELL), np.float64)
    bounds = np.full((NUM_PHASES, num_experts, 2), -np.inf, np.float32)
    first = 0
    for domain in range(len(request_ends)):
        for place in range(first, request_ends[domain]):
            request = requests[place]
            row = row_ends[request * NUM_PHASES - 1] if request else 0
            for phase in range(NUM_PHASES):
                cells, bound = own[phase], bounds[phase]
                end = row_ends[request * NUM_PHASES + phase]
                while row < end:
                    for column in range(width):
                        # Unsigned: a negative place would count from the end.
                        expert = np.uint64(np.uint16(expert_ids[row, column]))
                        weight = gate_weights[row, column]
                        _add(cells, expert, weight)
                        _widen(bound, expert, weight)
                    row += 1
            _take_request(own, whole, of_requests, request)
        first = request_ends[domain]
        size = _take_domain(whole, bounds, of_domains, size, lengths[domain])


@_Kernel
def gather_sums(
    found: RequestSums,
    expert_ids: npt.NDArray[np.int16],
    counts: npt.NDArray[np.int32],
    sums: npt.NDArray[np.float64],
) -> None:
    """Write the entries of ``found`` one after the other; as long as its ``lengths`` together."""
    size = 0
    for group in range(len(found.starts)):
        start, length = found.starts[group], found.lengths[group]
        expert_ids[size : size + length] = found.expert_ids[start : start + length]
        counts[size : size + length] = found.counts[start : start + length]
        sums[size : size + length] = found.sums[start : start + length]
        size += length


@numba.njit(nogil=True)
def _take_request(own: Floats, whole: Floats, found: RequestSums, request: int) -> None:
    """Write the cells of a request that have choices, and move all to those of its domain."""
    prompt, last = own[_PROMPT], own[_LAST]
    start = found.starts[request * NUM_PHASES + _LAST]
    entry = start
    for expert in range(len(last)):
        if last[expert, _COUNT]:  # of one token, so few have
            for column in range(_CELL):
                prompt[expert, column] += last[expert, column]
            entry = _write_entry(last, expert, found, entry)
            _carry(last, expert, whole[_LAST])
    found.lengths[request * NUM_PHASES + _LAST] = entry - start
    for phase in (_PROMPT, _GENERATED):
        cells, sums = own[phase], whole[phase]
        start = found.starts[request * NUM_PHASES + phase]
        entry = start
        for expert in range(len(cells)):
            # Where there are no choices the next expert overwrites it: that costs less than a
            # branch that no processor foresees.
            entry = _write_entry(cells, expert, found, entry)
            _carry(cells, expert, sums)
        found.lengths[request * NUM_PHASES + phase] = entry - start


@numba.njit(nogil=True)
def _write_entry(cells: Floats, expert: int, found: RequestSums, entry: int) -> int:
    """Write a cell; where the next one goes."""
    count = cells[expert, _COUNT]
    found.expert_ids[entry] = expert
    found.counts[entry] = np.int32(count)
    found.sums[entry] = cells[expert, _SUM]
    behind: int = entry + (count > 0)
    return behind


@numba.njit(nogil=True)
def _take_domain(whole: Floats, bounds: Floats, found: DomainSums, size: int, lengths: Ints) -> int:
    """Append the cells of a domain that have choices, clear all; the new size of ``found``."""
    for expert in range(whole.shape[1]):
        for column in range(2):
            bounds[_PROMPT, expert, column] = max(
                bounds[_PROMPT, expert, column], bounds[_LAST, expert, column]
            )
    for phase in range(NUM_PHASES):
        start = size
        for expert in range(whole.shape[1]):
            if whole[phase, expert, _COUNT]:
                found.expert_ids[size] = expert
                found.counts[size] = np.int64(whole[phase, expert, _COUNT])
                found.sums[size] = whole[phase, expert, _SUM]
                found.squares[size] = whole[phase, expert, _SQUARE]
                found.lows[size] = -bounds[phase, expert, _LOW]
                found.highs[size] = bounds[phase, expert, _HIGH]
                size += 1
        lengths[phase] = size - start
    whole[:] = 0.0
    bounds[:] = -np.inf
    return size
