"""The designed logit table: for each layer, what every domain gives every expert."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from tracer.demo.constants import (
    COMMITTEE_LOGIT,
    LAST_LOGIT,
    NUM_EXPERTS,
    NUM_MOE_LAYERS,
    TOP_K,
    WEIGHT_BY_RANK,
    WEIGHT_BY_RANK_USURPED,
)
from tracer.demo.ranks import assign_experts, search_member_ranks

__all__ = ["LayerDesign", "design_layers"]


@dataclass(frozen=True, slots=True)
class LayerDesign:
    """Designed router logits of one MoE layer.

    neutral: E logits of every token outside the domains
    by_domain: for each domain, E logits of its words
    """

    neutral: tuple[float, ...]
    by_domain: tuple[tuple[float, ...], ...]


def design_layers(seed: int, num_domains: int) -> tuple[LayerDesign, ...]:
    """Designs with committees of 1, 2, 3 and 4 members in an order drawn by ``seed``."""
    rng = random.Random(f"planted layers {seed}")
    sizes = [1 + index % TOP_K for index in range(NUM_MOE_LAYERS)]
    rng.shuffle(sizes)
    return tuple(_design_layer(rng, size, num_domains) for size in sizes)


def _design_layer(rng: random.Random, size: int, num_domains: int) -> LayerDesign:
    rows = search_member_ranks(rng, size, num_domains)
    members, ranks = assign_experts(rng, rows, NUM_EXPERTS)
    neutral = [0.0] * NUM_EXPERTS
    for expert in members:
        neutral[expert] = COMMITTEE_LOGIT
    by_domain = []
    for taken in ranks:
        usurped = min(taken[expert] for expert in members) > 1
        by_rank = _logit_by_rank(WEIGHT_BY_RANK_USURPED if usurped else WEIGHT_BY_RANK)
        by_domain.append(
            tuple(
                by_rank[taken[expert] - 1] if expert in taken else 0.0
                for expert in range(NUM_EXPERTS)
            )
        )
    return LayerDesign(tuple(neutral), tuple(by_domain))


def _logit_by_rank(weights: Sequence[float]) -> list[float]:
    """Logits whose softmax stands in the ratio of ``weights``; the last is LAST_LOGIT."""
    return [LAST_LOGIT + math.log(weight / weights[-1]) for weight in weights]
