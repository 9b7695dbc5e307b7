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
from llvmlite.binding import ffi

__all__ = ["NUM_PHASES", "Entries", "sort_rows", "sum_domains", "sum_requests"]

# Prompt, last prompt token, generated: see ``tracer.store.rollup.PHASES``.
NUM_PHASES = 3
_PROMPT, _LAST = 0, 1
# Columns of sums, and of bounds.
_SUM, _SQUARE = 0, 1
_LOW, _HIGH = 0, 1

_SIGN, _NO_SIGN = 0x8000_0000, 0x7FFF_FFFF
_INFINITE = 0x7F80_0000  # the exponent of what is not a finite number
_ID_BITS, _ID = 16, 0xFFFF

Ints = npt.NDArray[np.integer]
Floats = npt.NDArray[np.floating]


class Entries(NamedTuple):
    """Sums of the choices that some owners, requests or domains, made in a layer.

    One entry per owner, phase and expert that has choices, in this order. The other arrays may be
    longer than the last of ``ends``.

    ends: int64 [owners * phases], where the entries of each end
    expert_ids: int16; counts: int64
    sums: float64 [2, entries]: of weights, of their squares
    bounds: float32 [2, entries]: least and largest weights
    """

    ends: npt.NDArray[np.int64]
    expert_ids: npt.NDArray[np.int16]
    counts: npt.NDArray[np.int64]
    sums: npt.NDArray[np.float64]
    bounds: npt.NDArray[np.float32]


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
def sum_requests(
    expert_ids: npt.NDArray[np.int16],
    gate_weights: npt.NDArray[np.float32],
    row_ends: npt.NDArray[np.int64],
    num_experts: int,
    found: Entries,
) -> None:
    """Count and sum the choices of one layer by request, phase and expert.

    Args:
        expert_ids: [n, k], contiguous, below ``num_experts``.
        gate_weights: [n, k], contiguous.
        row_ends: [requests * phases], ascending: the row that each request's phase ends before.
        num_experts: of the layer.
        found: of requests, to write to. The last prompt token has entries of its own and is
            counted in the prompt too.
    """
    width = expert_ids.shape[1]
    counts, sums, bounds = _cells(num_experts)
    row, size = 0, 0
    for request in range(len(row_ends) // NUM_PHASES):
        for phase in range(NUM_PHASES):
            end = row_ends[request * NUM_PHASES + phase]
            # Views of one phase and unsigned places save a fifth of the time.
            count, total, bound = counts[phase], sums[phase], bounds[phase]
            while row < end:
                for column in range(width):
                    place = np.uint64(np.uint16(expert_ids[row, column]))
                    weight = gate_weights[row, column]
                    wide = np.float64(weight)
                    count[place] += 1
                    total[place, _SUM] += wide
                    total[place, _SQUARE] += wide * wide
                    bound[place, _LOW] = min(bound[place, _LOW], weight)
                    bound[place, _HIGH] = max(bound[place, _HIGH], weight)
                row += 1
        for expert in range(num_experts):
            if counts[_LAST, expert]:
                counts[_PROMPT, expert] += counts[_LAST, expert]
                last, ends = sums[_LAST, expert], bounds[_LAST, expert]
                _add(sums[_PROMPT, expert], last[_SUM], last[_SQUARE])
                _widen(bounds[_PROMPT, expert], ends[_LOW], ends[_HIGH])
        size = _take(counts, sums, bounds, found, request, size)


@_Kernel
def sum_domains(
    requests: npt.NDArray[np.int64],
    request_ends: npt.NDArray[np.int64],
    entries: Entries,
    num_experts: int,
    found: Entries,
) -> None:
    """Add up the entries of ``sum_requests`` by domain, phase and expert.

    Args:
        requests: numbers of all requests, those of a domain together.
        request_ends: [domains], ascending: where in ``requests`` each domain ends.
        entries: of requests.
        num_experts: of the layer.
        found: of domains, to write to.
    """
    counts, sums, bounds = _cells(num_experts)
    first, size = 0, 0
    for domain in range(len(request_ends)):
        for place in range(first, request_ends[domain]):
            for phase in range(NUM_PHASES):
                group = requests[place] * NUM_PHASES + phase
                for entry in range(entries.ends[group - 1] if group else 0, entries.ends[group]):
                    expert = entries.expert_ids[entry]
                    counts[phase, expert] += entries.counts[entry]
                    _add(
                        sums[phase, expert],
                        entries.sums[_SUM, entry],
                        entries.sums[_SQUARE, entry],
                    )
                    _widen(
                        bounds[phase, expert],
                        entries.bounds[_LOW, entry],
                        entries.bounds[_HIGH, entry],
                    )
        first = request_ends[domain]
        size = _take(counts, sums, bounds, found, domain, size)


@numba.njit(nogil=True)
def _cells(num_experts: int) -> tuple[Ints, Floats, Floats]:
    """Counts, sums and bounds of nothing: [phases, experts], two of [phases, experts, 2]."""
    counts = np.zeros((NUM_PHASES, num_experts), np.int64)
    sums = np.zeros((NUM_PHASES, num_experts, 2), np.float64)
    bounds = np.empty((NUM_PHASES, num_experts, 2), np.float32)
    bounds[:, :, _LOW] = np.inf
    bounds[:, :, _HIGH] = -np.inf
    return counts, sums, bounds


@numba.njit(nogil=True)
def _add(sums: Floats, total: float, square: float) -> None:
    sums[_SUM] += total
    sums[_SQUARE] += square


@numba.njit(nogil=True)
def _widen(bounds: Floats, low: float, high: float) -> None:
    bounds[_LOW] = min(bounds[_LOW], low)
    bounds[_HIGH] = max(bounds[_HIGH], high)


@numba.njit(nogil=True)
def _take(
    counts: Ints, sums: Floats, bounds: Floats, found: Entries, number: int, size: int
) -> int:
    """Append the cells that have choices, clear them, and return the new size of ``found``."""
    for phase in range(NUM_PHASES):
        for expert in range(counts.shape[1]):
            if counts[phase, expert]:
                found.expert_ids[size] = expert
                found.counts[size] = counts[phase, expert]
                for column in range(2):
                    found.sums[column, size] = sums[phase, expert, column]
                    found.bounds[column, size] = bounds[phase, expert, column]
                    sums[phase, expert, column] = 0.0
                size += 1
                counts[phase, expert] = 0
                bounds[phase, expert, _LOW] = np.inf
                bounds[phase, expert, _HIGH] = -np.inf
        found.ends[number * NUM_PHASES + phase] = size
    return size
