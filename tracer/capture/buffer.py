"""Preallocated device tensors that routers write their choices to.

Routers run inside CUDA graphs and compiled code, where Python does not run again after
recording. So the hook is one operator with declared mutation that copies into tensors at
fixed addresses; everything else happens once per step, outside.
"""

from dataclasses import dataclass

import torch

__all__ = ["MISSING", "RoutingBuffer", "record"]

# No expert has this id: a row that still holds it after a step was not routed where we look.
MISSING = -1

_library = torch.library.Library("moe_tracer", "DEF")
_library.define(
    "record(Tensor(a!) expert_ids, Tensor(b!) gate_weights, Tensor topk_ids, Tensor topk_weights)"
    " -> ()"
)


def _record(
    expert_ids: torch.Tensor,
    gate_weights: torch.Tensor,
    topk_ids: torch.Tensor,
    topk_weights: torch.Tensor,
) -> None:
    rows, top_k = topk_ids.shape
    expert_ids[:rows, :top_k].copy_(topk_ids)
    gate_weights[:rows, :top_k].copy_(topk_weights)


def _record_nothing(
    expert_ids: torch.Tensor,
    gate_weights: torch.Tensor,
    topk_ids: torch.Tensor,
    topk_weights: torch.Tensor,
) -> None:
    """What compilers trace instead: the operator returns nothing."""


_library.impl("record", _record, "CompositeExplicitAutograd")
_library.impl("record", _record_nothing, "Meta")

record = torch.ops.moe_tracer.record
"""Copy one router's output into one layer of a ``RoutingBuffer``.

Args: expert_ids int16 [max_tokens, top_k], gate_weights float32 [max_tokens, top_k] (both
written), topk_ids any integer [rows, top_k], topk_weights any float [rows, top_k].
"""


@dataclass(frozen=True, slots=True)
class RoutingBuffer:
    """Choices of one forward pass.

    expert_ids: int16 [layers, max_tokens, top_k], MISSING where nothing was written
    gate_weights: float32 [layers, max_tokens, top_k]
    """

    expert_ids: torch.Tensor
    gate_weights: torch.Tensor

    @classmethod
    def allocate(
        cls, num_layers: int, max_tokens: int, top_k: int, device: torch.device
    ) -> "RoutingBuffer":
        """Buffers for one worker: 6 bytes per (layer, token, choice)."""
        shape = (num_layers, max_tokens, top_k)
        return cls(
            torch.full(shape, MISSING, dtype=torch.int16, device=device),
            torch.zeros(shape, dtype=torch.float32, device=device),
        )

    def clear(self, num_tokens: int) -> None:
        """Forget the rows the next pass will write, so that one it skips is noticed."""
        self.expert_ids[:, :num_tokens].fill_(MISSING)

    def snapshot(self, num_tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Copies of the first ``num_tokens`` rows on the host: int16 and float32 [layers, n, k]."""
        # .cpu() alone would alias the live buffer where the device is the CPU.
        ids, weights = self.expert_ids[:, :num_tokens], self.gate_weights[:, :num_tokens]
        if ids.device.type == "cpu":
            return ids.clone(), weights.clone()
        return ids.cpu(), weights.cpu()
