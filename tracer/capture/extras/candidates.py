"""``--top-m M``: the M experts of highest selection score; the routing itself is unchanged.

The selection score is what the router compares: the scoring function of the logits, plus the
selection bias where the model has one (DeepSeek-V3, arXiv 2412.19437, Eq. 16). Limits on groups
of experts are not applied, so that a grouped router's choice need not be the first k candidates.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from tracer.capture.router_facts import AttachedModel
from tracer.capture.row_format import Field
from tracer.errors import InputError, UnsupportedModelError

__all__ = ["Candidates"]


@dataclass(frozen=True, slots=True)
class Candidates:
    """M scores and ids per token and layer, by descending score."""

    top_m: int
    scoring_function: str

    @classmethod
    def of(cls, top_m: int, facts: AttachedModel) -> "Candidates":
        """For a model.

        Raises:
            InputError: M is not above top-k, or above the number of experts.
            UnsupportedModelError: the model's scores are not softmax or sigmoid of its logits.
        """
        if not facts.top_k < top_m <= facts.num_experts:
            raise InputError(
                f"--top-m {top_m} does not fit a model that chooses {facts.top_k} of"
                f" {facts.num_experts} experts",
                f"choose a number from {facts.top_k + 1} to {facts.num_experts}.",
            )
        if facts.scoring_function not in ("softmax", "sigmoid") or not facts.plain_scores:
            raise UnsupportedModelError(
                "--top-m needs softmax or sigmoid scores that vLLM computes; this model brings a"
                f" routing function of its own ({facts.scoring_function})",
                "record all logits instead: --router-logits.",
            )
        return cls(top_m, facts.scoring_function)

    @property
    def fields(self) -> Sequence[Field]:
        """float32 scores, int16 ids."""
        return (
            Field("candidate_scores", torch.float32, self.top_m),
            Field("candidate_ids", torch.int16, self.top_m),
        )

    def values(self, router: Any, router_logits: torch.Tensor) -> Sequence[torch.Tensor]:
        """(scores, ids), both [rows, M]."""
        logits = router_logits.float()
        scores = logits.softmax(-1) if self.scoring_function == "softmax" else logits.sigmoid()
        bias = getattr(router, "e_score_correction_bias", None)
        if bias is not None:
            scores = scores + bias.float()
        best, ids = scores.topk(self.top_m, dim=-1)
        return best, ids
