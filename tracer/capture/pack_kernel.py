"""The Triton kernel behind ``pack``; imported on first use on CUDA only.

Checked bit by bit with Triton's interpreter on the CPU, and on a GPU by ``make test-gpu``.
"""

import torch
import triton  # type: ignore[import-untyped]
import triton.language as tl  # type: ignore[import-untyped]

__all__ = ["pack_rows"]

_BLOCK = 256

# Routers run while graphs are captured, where compiling one more variant may be forbidden, and
# layers lie at offsets of k bytes. So nothing but the dtypes and k chooses the variant.
_UNSPECIALISED = (
    "expert_ids",
    "gate_weights",
    "topk_ids",
    "topk_weights",
    "num_choices",
    "id_row",
    "id_column",
    "weight_row",
    "weight_column",
    "from_id_row",
    "from_id_column",
    "from_weight_row",
    "from_weight_column",
)


@triton.jit  # type: ignore[untyped-decorator]
def _bfloat16(weights: tl.tensor) -> tl.tensor:
    """Nearest bfloat16, ties to even, NaN to the quiet NaN.

    In integers, since Triton's interpreter cuts the bits off where a GPU rounds.
    """
    bits = weights.to(tl.float32).to(tl.uint32, bitcast=True)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    rounded = tl.where(weights == weights, rounded, 0x7FC0)  # noqa: PLR0124 - false for NaN
    return rounded.to(tl.uint16).to(tl.bfloat16, bitcast=True)


@triton.jit(  # type: ignore[untyped-decorator]
    do_not_specialize=_UNSPECIALISED, do_not_specialize_on_alignment=_UNSPECIALISED
)
def _pack(  # noqa: PLR0917 - kernels take their arguments by position
    expert_ids: tl.tensor,
    gate_weights: tl.tensor,
    topk_ids: tl.tensor,
    topk_weights: tl.tensor,
    num_choices: tl.tensor,
    id_row: tl.tensor,
    id_column: tl.tensor,
    weight_row: tl.tensor,
    weight_column: tl.tensor,
    from_id_row: tl.tensor,
    from_id_column: tl.tensor,
    from_weight_row: tl.tensor,
    from_weight_column: tl.tensor,
    top_k: tl.constexpr,
    block: tl.constexpr,
) -> None:
    choice = tl.program_id(0) * block + tl.arange(0, block)
    present = choice < num_choices
    row = (choice // top_k).to(tl.int64)
    column = choice % top_k
    ids = tl.load(topk_ids + row * from_id_row + column * from_id_column, mask=present)
    narrow = ids.to(expert_ids.dtype.element_ty)
    tl.store(expert_ids + row * id_row + column * id_column, narrow, mask=present)
    weights = tl.load(
        topk_weights + row * from_weight_row + column * from_weight_column, mask=present
    )
    if topk_weights.dtype.element_ty == gate_weights.dtype.element_ty:
        stored = weights
    elif gate_weights.dtype.element_ty == tl.bfloat16:
        stored = _bfloat16(weights)
    else:
        stored = weights.to(tl.float32)
    tl.store(gate_weights + row * weight_row + column * weight_column, stored, mask=present)


def pack_rows(
    expert_ids: torch.Tensor,
    gate_weights: torch.Tensor,
    topk_ids: torch.Tensor,
    topk_weights: torch.Tensor,
) -> None:
    """As ``pack``, in one launch."""
    num_choices = topk_ids.numel()
    if num_choices == 0:
        return
    _pack[(triton.cdiv(num_choices, _BLOCK),)](
        expert_ids,
        gate_weights,
        topk_ids,
        topk_weights,
        num_choices,
        *expert_ids.stride(),
        *gate_weights.stride(),
        *topk_ids.stride(),
        *topk_weights.stride(),
        top_k=topk_ids.shape[1],
        block=_BLOCK,
    )
