"""How few bytes routing fits in, for a coder that knows layer and rank of a choice and no more."""

from math import lgamma, log

import numpy as np
import numpy.typing as npt

__all__ = ["code_bytes"]

_BF16_SHIFT = 16
_HALF = 0.5


def code_bytes(ids: npt.NDArray[np.integer], weights: npt.NDArray[np.float32]) -> float:
    """Bytes of one layer's choices under an adaptive order-0 coder.

    Each rank has a model of its own for the id and for the weight's upper half. A symbol costs what
    the counts before it say, half a count ahead for each that occurs (Krichevsky and Trofimov,
    1981), so the cost of learning is in it; which symbols occur is told for nothing.

    Args:
        ids: [n, top_k], by descending weight.
        weights: [n, top_k], of bfloat16 precision.
    """
    halves = np.ascontiguousarray(weights).view(np.uint32) >> np.uint32(_BF16_SHIFT)
    columns = [column for part in (ids, halves) for column in part.T]
    return sum(_code_bits(np.bincount(column)) for column in columns) / 8


def _code_bits(counts: npt.NDArray[np.int64]) -> float:
    """Bits of a sequence with so many of each symbol, in whatever order."""
    seen = [int(count) for count in counts[counts > 0]]
    start = len(seen) * _HALF
    whole = lgamma(sum(seen) + start) - lgamma(start)
    parts = sum(lgamma(count + _HALF) for count in seen) - len(seen) * lgamma(_HALF)
    return (whole - parts) / log(2)
