"""One request's routing as arrays, and the order its choices are stored in."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tracer.errors import DamagedDataError

__all__ = ["RequestTrace", "round_to_bf16", "sort_choices"]

Ids = npt.NDArray[np.int16]
Weights = npt.NDArray[np.float32]

_SIGN = np.uint32(0x8000_0000)


@dataclass(frozen=True, slots=True)
class RequestTrace:
    """Everything one worker recorded of one finished request.

    layer_ids: the worker's MoE layers, ascending
    token_ids: int32 [prompt + generated], the last sampled token included
    positions: int32 [n], ascending; tokens that have routing
    expert_ids: int16 [len(layer_ids), n, top_k]
    gate_weights: float32 [len(layer_ids), n, top_k]
    """

    request_id: str
    domain: str
    num_prompt_tokens: int
    layer_ids: Sequence[int]
    token_ids: npt.NDArray[np.int32]
    positions: npt.NDArray[np.int32]
    expert_ids: Ids
    gate_weights: Weights

    def check(self, num_experts: int) -> None:
        """Refuse what no router can have produced.

        Raises:
            DamagedDataError: an id outside 0..num_experts-1, an expert twice in one choice, a
                weight that is not finite, or a position outside the request or out of order.
        """
        if self.expert_ids.size == 0:
            return
        name = f"request {self.request_id!r}"
        low, high = int(self.expert_ids.min()), int(self.expert_ids.max())
        if low < 0 or high >= num_experts:
            raise DamagedDataError(
                f"{name} has expert id {low if low < 0 else high};"
                f" ids run from 0 to {num_experts - 1}"
            )
        if not np.isfinite(self.gate_weights).all():
            raise DamagedDataError(f"{name} has a gate weight that is not a finite number")
        by_id = np.sort(self.expert_ids, axis=-1)
        if (by_id[..., 1:] == by_id[..., :-1]).any():
            raise DamagedDataError(f"{name} chooses the same expert twice for one token")
        steps = np.diff(self.positions)
        if (steps <= 0).any() or self.positions[0] < 0 or self.positions[-1] >= len(self.token_ids):
            raise DamagedDataError(f"{name} has positions outside the request or out of order")


def round_to_bf16(weights: Weights) -> Weights:
    """Nearest bfloat16 value of each weight (ties to even), still float32; any shape."""
    bits = weights.view(np.uint32)
    rounded = bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    return (rounded & np.uint32(0xFFFF_0000)).view(np.float32)


def sort_choices(expert_ids: Ids, gate_weights: Weights) -> tuple[Ids, Weights]:
    """Order the choices of each token by descending weight, equal weights by ascending id.

    Routers return them in any order. One sort of packed keys is faster than an argsort and two
    gathers, and makes the order total. Ids are 0..32767, weights finite; last axis = choices.
    """
    bits = np.ascontiguousarray(gate_weights, dtype=np.float32).view(np.uint32)
    # Float order as unsigned order: flip all bits of negatives, the sign bit of the others.
    ascending = np.where(bits & _SIGN, ~bits, bits | _SIGN)
    packed = (~ascending).astype(np.uint64) << np.uint64(16) | expert_ids.astype(np.uint64)
    packed.sort(axis=-1)
    ids = (packed & np.uint64(0xFFFF)).astype(np.int16)
    ascending = ~(packed >> np.uint64(16)).astype(np.uint32)
    bits = np.where(ascending & _SIGN, ascending & ~_SIGN, ~ascending)
    return ids, bits.view(np.float32)
