"""The form of an extra: fields of the record, and how a router's logits become their values."""

from collections.abc import Sequence
from typing import Any, Protocol

import torch

from tracer.capture.extras.candidates import Candidates
from tracer.capture.extras.router_logits import RouterLogits
from tracer.capture.record_options import RecordOptions
from tracer.capture.router_facts import AttachedModel
from tracer.capture.row_format import Field
from tracer.errors import UnsupportedModelError

__all__ = ["Extra", "extras_of"]


class Extra(Protocol):
    """Computed where the router runs, so it must be traceable: tensor operations only."""

    @property
    def fields(self) -> Sequence[Field]:
        """What the record needs for it."""

    def values(self, router: Any, router_logits: torch.Tensor) -> Sequence[torch.Tensor]:
        """Of each field, [rows, width]; ``router_logits`` [rows, experts], any float."""


def extras_of(options: RecordOptions, facts: AttachedModel) -> list[Extra]:
    """The extras asked for.

    Raises:
        UnsupportedModelError: one that this model's routers cannot give.
    """
    if (options.top_m or options.router_logits) and not facts.sees_logits:
        raise UnsupportedModelError(
            "this model routes before vLLM's router, which sees no logits",
            "leave --top-m and --router-logits off.",
        )
    extras: list[Extra] = []
    if options.top_m:
        extras.append(Candidates.of(options.top_m, facts))
    if options.router_logits:
        extras.append(RouterLogits(facts.num_experts))
    return extras
