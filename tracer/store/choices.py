"""The order choices are stored in, and the precision of their weights.

A token's choices are sorted by descending weight, equal weights by ascending id: routers return
them in any order. Keys pack weight and id into one integer, so that the sort moves both, and
rows are sorted side by side by a sorting network: each step compares two whole columns.
"""

from functools import cache

import numpy as np
import numpy.typing as npt

__all__ = ["round_mantissa", "sort_choices"]

# Rows that a network sorts at a time: 16 columns of 8 bytes still fit the cache of a core.
_BLOCK = 8192
_NO_SIGN = np.int32(0x7FFF_FFFF)
_BF16 = np.uint32(0xFFFF_0000)


def round_mantissa(values: npt.NDArray[np.float32], dropped: int) -> npt.NDArray[np.float32]:
    """Nearest float32 whose last ``dropped`` bits are zero, ties to even; finite, any shape.

    16 bits dropped leave bfloat16 precision, 13 the precision of float16 (11 significant bits),
    both with the range of float32.
    """
    bits = values.view(np.uint32)
    half = np.uint32((1 << (dropped - 1)) - 1)
    rounded = bits + half + ((bits >> np.uint32(dropped)) & np.uint32(1))
    return (rounded & np.uint32(0x1_0000_0000 - (1 << dropped))).view(np.float32)


def sort_choices(
    expert_ids: npt.NDArray[np.uint8 | np.int16], gate_weights: npt.NDArray[np.float32]
) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.float32]]:
    """Order the choices of each token by descending weight, equal weights by ascending id.

    Args:
        expert_ids: [n, top_k], 0..32767, contiguous.
        gate_weights: [n, top_k], contiguous; not-a-numbers go first or last.

    Returns:
        New arrays: ids int16 [n, top_k], weights float32 [n, top_k].
    """
    bits = gate_weights.view(np.uint32)
    # Weights of bfloat16 precision leave the lower half of their bits to the id.
    narrow = not (np.bitwise_or.reduce(bits, axis=None) & ~_BF16)
    keys = _descending(bits.view(np.int32)).view(np.uint32)
    if narrow:
        packed = (keys & _BF16) | expert_ids.astype(np.uint32)
    else:
        packed = (keys.astype(np.uint64) << np.uint64(16)) | expert_ids.astype(np.uint64)
    packed = _sort_rows(packed)
    ids = packed.astype(np.int16)  # their lower 16 bits
    keys = packed & _BF16 if narrow else (packed >> np.uint64(16)).astype(np.uint32)
    bits = _descending(keys.view(np.int32)).view(np.uint32)
    return ids, (bits & _BF16 if narrow else bits).view(np.float32)


def _descending(bits: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """Bits of floats as keys that ascend, unsigned, where floats descend; its own inverse.

    Flips all but the sign of floats that are not negative, and nothing of those that are.
    """
    return bits ^ (~(bits >> np.int32(31)) & _NO_SIGN)


def _sort_rows(packed: npt.NDArray[np.unsignedinteger]) -> npt.NDArray[np.unsignedinteger]:
    """Each row of [n, k] ascending; several times as fast as ``np.sort`` where k is small."""
    rows, width = packed.shape
    if width == 1:
        return packed
    spare = np.empty(min(rows, _BLOCK), dtype=packed.dtype)
    for begin in range(0, rows, _BLOCK):
        block = packed[begin : begin + _BLOCK]
        columns = list(np.ascontiguousarray(block.T))
        for low, high in _comparators(width):
            smaller = spare[: len(block)]
            np.minimum(columns[low], columns[high], out=smaller)
            np.maximum(columns[low], columns[high], out=columns[high])
            columns[low], spare = smaller, columns[low]
        for index, column in enumerate(columns):
            block[:, index] = column
        spare = np.empty(min(rows, _BLOCK), dtype=packed.dtype)
    return packed


@cache
def _comparators(width: int) -> tuple[tuple[int, int], ...]:
    """Batcher's odd-even merge sort of ``width`` columns: pairs to compare, in order.

    Knuth, The Art of Computer Programming, volume 3, algorithm 5.2.2M.
    """
    pairs = []
    top = 1 << max(width - 1, 1).bit_length() - 1
    step = top
    while step:
        limit, offset, distance = top, 0, step
        while True:
            pairs += [(i, i + distance) for i in range(width - distance) if i & step == offset]
            if limit == step:
                break
            distance, limit, offset = limit - step, limit >> 1, step
        step >>= 1
    return tuple(pairs)
