"""Committee arithmetic: from an expert's ranks over domains to a layer's standing committee.

Pure functions after COMMITTEEAUDIT (arXiv 2601.03425 v2; equation numbers are its own) and, where
named *reference*, after the authors' code (github The-FinAI/CommitteeAudit, be5c1d7).
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np

__all__ = [
    "candidates",
    "equal_weight_density",
    "expected_jaccard",
    "gini",
    "inferred_num_experts",
    "influence_density",
    "pareto",
    "presence_threshold",
    "reference_moments",
]

_INFERRED_SIZES = (64, 128, 256)
_ROUNDING = 1e-12  # a smaller share is what sums leave behind


def presence_threshold(num_domains: int, min_presence: float) -> int:
    """Least number of domains that must list a candidate (Eq. 10), at least 1.

    The share is rounded up as the reference does, less 1e-9 that keep 0.55 of 100 at 55.
    """
    return max(1, math.ceil(num_domains * min_presence - 1e-9))


def candidates(num_listed: Mapping[int, int], threshold: int) -> tuple[list[int], bool]:
    """Experts listed by at least ``threshold`` domains, ascending, and whether none was.

    If none was, those listed most often are candidates: the reference's fallback, which the
    paper does not mention.

    Args:
        num_listed: domains that list the expert, by expert id; not empty.
        threshold: as from ``presence_threshold``.
    """
    passed = sorted(expert for expert, count in num_listed.items() if count >= threshold)
    if passed:
        return passed, False
    most = max(num_listed.values())
    return sorted(expert for expert, count in num_listed.items() if count == most), True


def pareto(points: Mapping[int, tuple[float, float]]) -> list[int]:
    """Experts whose (rank mean, rank variance) no other beats in both (Eq. 12).

    One is beaten by another that is no worse in either and better in one; equal points all stay.

    Returns:
        Expert ids by ascending rank mean, equal ones by id.
    """

    def beaten(mean: float, var: float) -> bool:
        return any(m <= mean and v <= var and (m < mean or v < var) for m, v in points.values())

    kept = [expert for expert, point in points.items() if not beaten(*point)]
    return sorted(kept, key=lambda expert: (points[expert][0], expert))


def reference_moments(
    listed_ranks: Sequence[int], num_domains: int, rank_cutoff: int
) -> tuple[float, float]:
    """Mean and population variance of an expert's ranks, to the last bit as the reference has them.

    Its variance is NumPy's over the listed ranks by domain, then ``rank_cutoff + 1`` for each other
    domain. The order of summation shows: of two experts with the same ranks in other domains one
    may come out smaller by a rounding and so beat the other, which exact numbers never do.
    """
    missing = num_domains - len(listed_ranks)
    ranks = np.array([*listed_ranks, *[rank_cutoff + 1] * missing])
    return float(np.mean(ranks)), float(np.var(ranks))


def inferred_num_experts(largest_id: int) -> int:
    """Number of experts the reference infers from the largest id it sees: 64, 128, 256 or id + 1.

    Wrong for other sizes; only `reference` mode uses it.
    """
    return next((size for size in _INFERRED_SIZES if largest_id < size), largest_id + 1)


def influence_density(coverage: float, committee_size: int, num_experts: int) -> float:
    """Mean contribution of a member over that of a non-member (Table 5).

    Args:
        coverage: the members' share of the layer's listed contribution, 0 to 1.
        committee_size: number of members.
        num_experts: routed experts of the layer.

    Returns:
        inf where nothing is left for the others; 1 where there are no members or no others.
    """
    if not 0 < committee_size < num_experts:
        return 1.0
    if 1 - coverage < _ROUNDING:
        return math.inf
    return coverage / committee_size / ((1 - coverage) / (num_experts - committee_size))


def equal_weight_density(committee_size: int, rank_cutoff: int, num_experts: int) -> float:
    """``influence_density`` if all listed weights were equal and the members always listed.

    A reference, not a chance level: (E - |C|) / (k - |C|), inf where the members fill the lists.
    """
    if committee_size >= rank_cutoff:
        return math.inf
    return (num_experts - committee_size) / (rank_cutoff - committee_size)


def expected_jaccard(size: int, num_experts: int) -> float:
    """Mean Jaccard index of two independent random sets of ``size`` out of ``num_experts``.

    The overlap x is hypergeometric, the index x / (2 size - x).
    """
    ways = math.comb(num_experts, size)
    return sum(
        math.comb(size, x) * math.comb(num_experts - size, size - x) / ways * x / (2 * size - x)
        for x in range(max(1, 2 * size - num_experts), size + 1)
    )


def gini(contributions: Sequence[float], num_experts: int) -> float:
    """Gini index of mean contributions over all ``num_experts`` (Eq. 14), 0 if all are zero.

    Args:
        contributions: of the experts that have any; the others count as zero.
        num_experts: routed experts of the layer, E.
    """
    values = np.zeros(num_experts)
    values[: len(contributions)] = contributions
    values.sort()
    total = float(values.sum())
    if total == 0:
        return 0.0
    places = np.arange(1, num_experts + 1)
    # Sum of all |a - b| over pairs, by place in ascending order, is 2 * sum((2i - E - 1) * value).
    return float(((2 * places - num_experts - 1) * values).sum()) / (num_experts * total)
