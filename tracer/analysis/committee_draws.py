"""The committee of one layer for many draws at once: what ``layers.py`` finds, in arrays.

Gate mode only. Ranks, presence, candidates, fallback and Pareto set are those of
``queries/audit/*.sql`` and ``committee.py``, ties broken alike; every whole number is exact, and
what is summed agrees to rounding. The tests compare both.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from tracer.analysis.committee import presence_threshold

__all__ = ["CommitteeDraws", "committee_draws", "list_overlap"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

_ROUNDING = 1e-12  # as committee.influence_density: a smaller share is what sums leave behind
_CELLS = 2_000_000  # contributions ranked at a time: about 100 bytes of work for each


@dataclass(frozen=True, slots=True)
class CommitteeDraws:
    """What COMMITTEEAUDIT tells of a layer, for each draw; the names of ``LayerAudit``.

    members: [draws, experts]
    committee_size, num_candidates: int64 [draws]
    presence_top: mean presence of the ``rank_cutoff`` most listed experts, 1 where all domains
        list the same ones
    the others: float64 [draws], NaN where a draw has no list (``jaccard_mean``: no pair of lists)
    """

    members: Bools
    committee_size: Ints
    num_candidates: Ints
    rank_mean: Floats
    rank_var: Floats
    coverage: Floats
    coverage_lift: Floats
    influence_density: Floats
    jaccard_mean: Floats
    presence_top: Floats
    gini: Floats


def committee_draws(
    contributions: Floats, *, rank_cutoff: int, min_presence: float, present: Bools | None = None
) -> CommitteeDraws:
    """Committees of one layer (COMMITTEEAUDIT Eq. 8 to 14), draw by draw.

    Args:
        contributions: [draws, domains, experts]; NaN where no token of the domain chose the
            expert, which then has no rank.
        rank_cutoff: k, how deep each domain's list goes.
        min_presence: least share of domains that must list a candidate.
        present: [draws, domains], domains that count in n; by default all, as in the audit, where
            a domain without a row in the layer counts.
    """
    num_draws, num_domains, _ = contributions.shape
    if present is None:
        present = np.ones((num_draws, num_domains), dtype=bool)
    parts = [
        _some_draws(contributions[part], present[part], rank_cutoff, min_presence)
        for part in _parts(contributions.shape)
    ]
    return CommitteeDraws(
        *(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(CommitteeDraws))
    )


def list_overlap(contributions: Floats, rank_cutoff: int) -> Floats:
    """Mean Jaccard index of the lists of every two domains (Eq. 13): float64 [draws].

    Args:
        contributions: as of ``committee_draws``; a domain without a list is in no pair.
        rank_cutoff: how deep each list goes.
    """
    found = [
        _overlap(_ranks(contributions[part], rank_cutoff) <= rank_cutoff)
        for part in _parts(contributions.shape)
    ]
    return np.concatenate(found)


def _parts(shape: tuple[int, ...]) -> Iterator[slice]:
    """Draws whose work fits into memory; at least one part."""
    size = max(1, _CELLS // max(1, shape[1] * shape[2]))
    for first in range(0, max(1, shape[0]), size):
        yield slice(first, first + size)


def _ranks(contributions: Floats, rank_cutoff: int) -> npt.NDArray[np.int32]:
    """Rank of each expert in its domain, 1 = largest, equal ones by id; below the list k + 1."""
    order = np.argsort(-contributions, axis=-1, kind="stable")[..., :rank_cutoff]  # NaN last
    ranked = ~np.isnan(np.take_along_axis(contributions, order, axis=-1))
    places = np.where(ranked, np.arange(1, order.shape[-1] + 1), rank_cutoff + 1)
    ranks = np.full(contributions.shape, rank_cutoff + 1, dtype=np.int32)
    np.put_along_axis(ranks, order, places.astype(np.int32), axis=-1)
    return ranks


def _overlap(listed: Bools) -> Floats:
    """Mean Jaccard index over pairs of domains with a list: from [draws, domains, experts]."""
    narrow = listed.astype(np.float32)  # counts below 2**24 are exact
    shared = (narrow @ narrow.swapaxes(1, 2)).astype(np.float64)
    sizes = listed.sum(axis=-1)
    one, two = np.triu_indices(listed.shape[1], 1)
    both = (sizes[:, one] > 0) & (sizes[:, two] > 0)
    shared = shared[:, one, two]
    union = np.maximum(sizes[:, one] + sizes[:, two] - shared, 1)
    return _ratio((shared / union * both).sum(axis=-1), both.sum(axis=-1))


def _some_draws(
    contributions: Floats, present: Bools, rank_cutoff: int, min_presence: float
) -> CommitteeDraws:
    num_experts = contributions.shape[-1]
    num_domains = present.sum(axis=1)
    ranks = _ranks(contributions, rank_cutoff)
    listed = ranks <= rank_cutoff
    num_listed = listed.sum(axis=1)
    # Whole numbers as in audit/experts, so that equal ranks in another order stay equal.
    counted = np.where(present[..., None], ranks, 0).astype(np.int64)
    rank_sum = counted.sum(axis=1)
    spread = num_domains[:, None] * (counted**2).sum(axis=1) - rank_sum**2
    passed = _candidates(num_listed, num_domains, min_presence)
    members = _pareto(rank_sum, spread, passed)
    size = members.sum(axis=1)
    values = np.nan_to_num(contributions, nan=0.0)
    listed_sum = (values * listed).sum(axis=1)
    total = listed_sum.sum(axis=1)
    coverage = np.where(total > 0, _ratio((listed_sum * members).sum(axis=1), total), 0.0)
    coverage = np.where(size > 0, coverage, np.nan)
    top = np.sort(num_listed, axis=1)[:, ::-1][:, :rank_cutoff].sum(axis=1)
    return CommitteeDraws(
        members=members,
        committee_size=size,
        num_candidates=passed.sum(axis=1),
        rank_mean=_ratio((rank_sum * members).sum(axis=1), size * num_domains),
        rank_var=_ratio((spread * members).sum(axis=1), size * num_domains**2),
        coverage=coverage,
        coverage_lift=_ratio(coverage * rank_cutoff, size),
        influence_density=_density(coverage, size, num_experts),
        jaccard_mean=_overlap(listed),
        presence_top=_ratio(top, rank_cutoff * num_domains),
        gini=_gini(values.sum(axis=1)),
    )


def _candidates(num_listed: Ints, num_domains: Ints, min_presence: float) -> Bools:
    """Experts listed often enough, else those listed most often (``committee.candidates``)."""
    enough = np.array([presence_threshold(int(n), min_presence) for n in num_domains])
    passed = num_listed >= enough[:, None]
    most = num_listed == num_listed.max(axis=1, keepdims=True)
    return np.where(passed.any(axis=1, keepdims=True), passed, most) & (num_listed > 0)


def _pareto(mean: Ints, spread: Ints, passed: Bools) -> Bools:
    """Which candidates no other beats in both numbers (``committee.pareto``), [draws, experts].

    In ascending order of both, an expert unlike the one before it is beaten by one of those before
    it, if by any, so by their least spread; one like the one before it fares as that one.
    """
    far = np.iinfo(np.int64).max // 4
    mean, spread = np.where(passed, mean, far), np.where(passed, spread, far)
    order = np.lexsort((spread, mean), axis=-1)
    mean, spread = (np.take_along_axis(x, order, axis=-1) for x in (mean, spread))
    least = np.minimum.accumulate(spread, axis=-1)
    kept = np.ones(mean.shape, dtype=bool)
    kept[:, 1:] = spread[:, 1:] < least[:, :-1]
    other = np.ones(mean.shape, dtype=bool)
    other[:, 1:] = (mean[:, 1:] != mean[:, :-1]) | (spread[:, 1:] != spread[:, :-1])
    first = np.maximum.accumulate(np.where(other, np.arange(mean.shape[1]), 0), axis=-1)
    kept = np.take_along_axis(kept, first, axis=-1)
    members = np.zeros(mean.shape, dtype=bool)
    np.put_along_axis(members, order, kept, axis=-1)
    return members & passed


def _density(coverage: Floats, size: Ints, num_experts: int) -> Floats:
    """``committee.influence_density``; NaN where coverage is."""
    left = 1 - coverage
    with np.errstate(divide="ignore", invalid="ignore"):
        density = coverage / size / (left / (num_experts - size))
    density = np.where(left < _ROUNDING, np.inf, density)
    density = np.where(size == num_experts, 1.0, density)
    return np.where(np.isnan(coverage), np.nan, density)


def _gini(totals: Floats) -> Floats:
    """``committee.gini`` of [draws, experts], 0 where all are zero."""
    num_experts = totals.shape[1]
    places = 2 * np.arange(1, num_experts + 1) - num_experts - 1
    weighed = (np.sort(totals, axis=1) * places).sum(axis=1)
    return np.nan_to_num(_ratio(weighed, num_experts * totals.sum(axis=1)), nan=0.0)


def _ratio(above: npt.NDArray[np.generic], below: npt.NDArray[np.generic]) -> Floats:
    """Quotient, NaN where the divisor is 0."""
    above, divisor = np.asarray(above, dtype=np.float64), np.asarray(below, dtype=np.float64)
    found = np.full(np.broadcast_shapes(above.shape, divisor.shape), np.nan)
    np.divide(above, divisor, out=found, where=divisor > 0)
    return found
