"""The order choices are stored in, and the precision of their weights.

A token's choices are sorted by descending weight, equal weights by ascending id: routers return
them in any order.
"""

import numpy as np
import numpy.typing as npt

from tracer.store.kernels import sort_rows

__all__ = ["as_float32", "round_mantissa", "sort_choices"]

_BF16_SHIFT = 16


def as_float32(weights: npt.NDArray[np.float32 | np.uint16]) -> npt.NDArray[np.float32]:
    """Numbers of any shape; uint16 are the upper halves of float32 (bfloat16)."""
    if weights.dtype == np.uint16:
        return (weights.astype(np.uint32) << np.uint32(_BF16_SHIFT)).view(np.float32)
    return weights.astype(np.float32)


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
    expert_ids: npt.NDArray[np.uint8 | np.int16],
    gate_weights: npt.NDArray[np.float32 | np.uint16],
    num_experts: int,
) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.float32]] | None:
    """Order the choices of each token by descending weight, equal weights by ascending id.

    Args:
        expert_ids: [n, layers, top_k], any strides.
        gate_weights: [n, layers, top_k], any strides; uint16 as in ``ShardRows.gate_weights``.
        num_experts: at most 32768.

    Returns:
        New arrays: ids int16 [layers, n, top_k], weights float32 [layers, n, top_k]. None where an
        id is outside 0..num_experts-1 or twice in a choice, or a weight is not finite.
    """
    narrow = gate_weights.dtype == np.uint16
    bits = gate_weights if narrow else gate_weights.view(np.uint32)
    rows, layers, top_k = expert_ids.shape
    sorted_ids = np.empty((layers, rows, top_k), dtype=np.int16)
    sorted_bits = np.empty((layers, rows, top_k), dtype=np.uint32)
    shift = _BF16_SHIFT if narrow else 0
    if not sort_rows(expert_ids, bits, shift, num_experts, sorted_ids, sorted_bits):
        return None
    return sorted_ids, sorted_bits.view(np.float32)
