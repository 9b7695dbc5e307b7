"""``--router-logits``: what the router computed for every expert, at float16 precision."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from tracer.capture.row_format import Field

__all__ = ["RouterLogits"]


@dataclass(frozen=True, slots=True)
class RouterLogits:
    """Two bytes per expert, layer and token: 16 times the size of a top-8 choice of 256."""

    num_experts: int

    @property
    def fields(self) -> Sequence[Field]:
        """One float16 per expert."""
        return (Field("router_logits", torch.float16, self.num_experts),)

    def values(self, router: Any, router_logits: torch.Tensor) -> Sequence[torch.Tensor]:
        """The logits as they are; the record rounds them."""
        del router
        return (router_logits,)
