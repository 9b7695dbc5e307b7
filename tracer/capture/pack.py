"""Narrows one router's choices into the record of its tokens.

On CUDA one Triton kernel casts and stores ids and weights together, since two copies per MoE
layer would be two launches inside every decoding step; everywhere else two copies do the same.
"""

from collections.abc import Callable
from functools import cache

import torch

__all__ = ["pack"]


def pack(
    expert_ids: torch.Tensor,
    gate_weights: torch.Tensor,
    topk_ids: torch.Tensor,
    topk_weights: torch.Tensor,
) -> None:
    """Cast and store ``n`` rows of choices; weights are rounded to nearest, ties to even.

    An id outside the narrow type keeps its low bits: -1 stays all ones.

    Args:
        expert_ids: uint8 or int16 [n, k], any strides; written.
        gate_weights: bfloat16 or float32 [n, k], any strides; written.
        topk_ids: int32 or int64 [n, k], any strides; n may be 0.
        topk_weights: float32, bfloat16 or float16 [n, k], any strides.
    """
    if topk_ids.is_cuda and (pack_rows := _kernel()):
        pack_rows(expert_ids, gate_weights, topk_ids, topk_weights)
        return
    expert_ids.copy_(topk_ids)
    gate_weights.copy_(topk_weights)


@cache
def _kernel() -> Callable[..., None] | None:
    """The Triton path, loaded on first use; None where Triton is not installed."""
    try:
        from tracer.capture.pack_kernel import pack_rows
    except ModuleNotFoundError as error:
        if error.name != "triton":
            raise
        return None
    return pack_rows
