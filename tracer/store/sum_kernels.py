"""Compiled loops that count and add up choices, for requests and domains in one pass.

Sums add in the order of the rows, so that files are the same wherever they are made. No GIL is
held, see ``kernels``.
"""

from typing import Any, NamedTuple

import numba
import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba.extending import intrinsic

from tracer.store.compiled import Kernel

__all__ = ["NUM_PHASES", "DomainSums", "RequestSums", "gather_sums", "sum_choices"]

# Prompt, last prompt token, generated: see ``tracer.store.rollup.PHASES``.
NUM_PHASES = 3
_PROMPT, _LAST, _GENERATED = range(NUM_PHASES)
# What a cell counts, as one vector; the fourth place makes it a power of two. And its bounds.
_SUM, _SQUARE, _COUNT = 0, 1, 2
_CELL = 4
_HIGH, _LOW = 0, 1  # the least weight with its sign turned: both are maxima
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


@Kernel
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


@Kernel
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
