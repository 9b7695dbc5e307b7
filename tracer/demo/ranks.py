"""Rank tables: who is first, second, ... in each domain, and which committee that makes."""

import math
import random
from collections.abc import Mapping, Sequence
from fractions import Fraction
from itertools import pairwise, permutations

from tracer.demo.constants import MIN_PRESENCE, TOP_K

__all__ = ["RankRow", "assign_experts", "search_member_ranks", "standing_committee"]

# Ranks of the committee members in one domain; member 0 first.
RankRow = tuple[int, ...]

# In how many domains a domain expert may take first place, by committee size. A committee of
# two is impossible without (ranks 1 and 2 alone have equal variance). A single member holds
# most of the weight of neutral words, which no domain expert can outweigh.
_USURPED = {1: (0,), 2: (2, 3), 3: (0, 1, 2), 4: (0,)}

# Members' rank variances differ by at least this, so that the Pareto set is no near-tie.
_LEAST_VARIANCE_STEP = Fraction(1, 20)


def standing_committee(ranks: Sequence[Mapping[int, int]], top_k: int = TOP_K) -> tuple[int, ...]:
    """The committee of one layer (COMMITTEEAUDIT): Pareto set on mean and variance of rank.

    Args:
        ranks: for each domain, expert id to rank (1 = largest); experts beyond ``top_k``
            are absent and count as rank ``top_k + 1``.
        top_k: length of each domain's list.

    Returns:
        Ascending expert ids; empty where no expert is in the list of enough domains.
    """
    num_domains = len(ranks)
    needed = math.ceil(num_domains * MIN_PRESENCE)
    scores = {}
    for expert in sorted({expert for row in ranks for expert in row}):
        if sum(expert in row for row in ranks) < needed:
            continue
        own = [row.get(expert, top_k + 1) for row in ranks]
        scores[expert] = _mean_and_variance(own)
    return tuple(
        expert
        for expert, own in scores.items()
        if not any(_dominates(other, own) for other in scores.values())
    )


def _mean_and_variance(ranks: Sequence[int]) -> tuple[Fraction, Fraction]:
    """Exact mean and population variance; floats would make ties depend on rounding."""
    mean = Fraction(sum(ranks), len(ranks))
    return mean, Fraction(sum(rank * rank for rank in ranks), len(ranks)) - mean * mean


def _dominates(one: tuple[Fraction, Fraction], other: tuple[Fraction, Fraction]) -> bool:
    return one != other and one[0] <= other[0] and one[1] <= other[1]


def search_member_ranks(rng: random.Random, size: int, num_domains: int) -> list[RankRow]:
    """Draw ranks for a committee of ``size`` until every member is in the Pareto set.

    Where a member's row leaves a rank in 1..TOP_K free, a domain expert takes it. A free
    rank above a member is always rank 1.

    Args:
        rng: source of randomness; consumed.
        size: 1 to TOP_K members.
        num_domains: rows to draw.

    Returns:
        One row for each domain.
    """
    while True:
        usurped = rng.choice(_USURPED[size])
        rows = _draw(rng, size, num_domains - usurped, first=1)
        rows += _draw(rng, size, usurped, first=2)
        rng.shuffle(rows)
        if _trades_off(rows):
            return rows


def _draw(rng: random.Random, size: int, count: int, first: int) -> list[RankRow]:
    """``count`` rows from a few permutations, one of them frequent.

    Independent uniform rows have nearly equal means and would seldom be a Pareto set.
    """
    every = list(permutations(range(first, first + size)))
    few = rng.sample(every, min(len(every), rng.randint(1, 4)))
    weights = [6.0] + [1.0] * (len(few) - 1)
    return rng.choices(few, weights, k=count)


def _trades_off(rows: Sequence[RankRow]) -> bool:
    """Whether all members are Pareto-minimal, with clearly different variances."""
    scores = sorted(_mean_and_variance(column) for column in zip(*rows, strict=True))
    return all(
        later[0] > earlier[0] and earlier[1] - later[1] >= _LEAST_VARIANCE_STEP
        for earlier, later in pairwise(scores)
    )


def assign_experts(
    rng: random.Random, rows: Sequence[RankRow], num_experts: int
) -> tuple[tuple[int, ...], list[dict[int, int]]]:
    """Give the members ids and fill the free ranks of each domain with domain experts.

    Args:
        rng: source of randomness; consumed.
        rows: member ranks of each domain.
        num_experts: E of the layer.

    Returns:
        The member ids (in the order of ``rows``' columns), and for each domain the map from
        expert id to rank 1..TOP_K. Domain experts are spread: each serves as few domains as
        possible, so that none can pass the presence threshold.
    """
    ids = list(range(num_experts))
    rng.shuffle(ids)
    members, others = tuple(ids[: len(rows[0])]), ids[len(rows[0]) :]
    served = dict.fromkeys(others, 0)
    ranks = []
    for row in rows:
        taken = dict(zip(members, row, strict=True))
        free = [rank for rank in range(1, TOP_K + 1) if rank not in row]
        rng.shuffle(others)
        chosen = sorted(others, key=served.__getitem__)[: len(free)]
        for expert, rank in zip(chosen, free, strict=True):
            taken[expert] = rank
            served[expert] += 1
        ranks.append(taken)
    return members, ranks
