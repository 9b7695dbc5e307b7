"""What an audit's contributions say beyond its committees: concentration, stability, depth.

Numbers only, of a finished ``Audit``. Its contributions hold every chosen expert in gate mode, and
in every mode which of them the domains list.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tracer.analysis.committee import gini
from tracer.records import Audit, Contribution

__all__ = [
    "Concentration",
    "ExpertStability",
    "LayerDepth",
    "concentration",
    "depth_profile",
    "lorenz_curve",
    "stability",
]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Concentration:
    """How unevenly a layer's experts share contribution, of one vector of means over domains.

    vector: `full` (every chosen expert), or `listed` (zero outside each domain's list, as the
        published values were made, which therefore lie just above 1 - k / E)
    gini_equal_lists: 0; of `listed` 1 - k / E, if all domains listed the same k equal experts
    num_used: experts with any contribution
    lorenz: share of contribution of the 0, 1, ... E experts with the least, 0 to 1
    """

    layer_id: int
    vector: str
    gini: float
    gini_equal_lists: float
    num_used: int
    lorenz: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class ExpertStability:
    """An expert over the domains that list it (COMMITTEEAUDIT Table 8).

    contribution_mean, contribution_std: over those domains, population
    score: number of domains x mean contribution; presents experts, does not choose them
    """

    layer_id: int
    expert_id: int
    num_domains: int
    contribution_mean: float
    contribution_std: float
    score: float
    member: bool


@dataclass(frozen=True, slots=True)
class LayerDepth:
    """A layer's numbers by its place among the audited ones, 0 for the first to 1 for the last."""

    layer_id: int
    depth: float
    committee_size: int
    coverage_lift: float
    jaccard_mean: float
    gini: float


def concentration(audit: Audit) -> list[Concentration]:
    """Lorenz curve and Gini index of each layer (Eq. 14), full and listed beside each other."""
    found = []
    for layer_id, rows in _by_layer(audit.contributions).items():
        full, listed = np.zeros(audit.num_experts), np.zeros(audit.num_experts)
        for row in rows:
            full[row.expert_id] += row.contribution
            listed[row.expert_id] += row.contribution * (row.rank <= audit.rank_cutoff)
        floor = 1 - audit.rank_cutoff / audit.num_experts
        for vector, values, least in (("full", full, 0.0), ("listed", listed, floor)):
            found.append(
                Concentration(
                    layer_id=layer_id,
                    vector=vector,
                    gini=gini(values.tolist(), audit.num_experts),
                    gini_equal_lists=least,
                    num_used=int(np.count_nonzero(values)),
                    lorenz=tuple(lorenz_curve(values).tolist()),
                )
            )
    return found


def lorenz_curve(values: Floats) -> Floats:
    """Share of the whole that the 0, 1, ... n smallest values hold; a straight line if all are 0.

    The Gini index is 1 - 2 x the area below it, by trapezoids.
    """
    total = float(values.sum())
    if total == 0:
        return np.linspace(0, 1, len(values) + 1)
    sums: Floats = np.concatenate([[0.0], np.cumsum(np.sort(values))])
    return sums / total


def stability(audit: Audit) -> list[ExpertStability]:
    """Every listed expert of each layer, by descending score, equal ones by id."""
    members = {layer.layer_id: set(layer.committee) for layer in audit.layers}
    found = []
    for layer_id, rows in _by_layer(audit.contributions).items():
        values: dict[int, list[float]] = defaultdict(list)
        for row in rows:
            if row.rank <= audit.rank_cutoff:
                values[row.expert_id].append(row.contribution)
        layer = [
            ExpertStability(
                layer_id=layer_id,
                expert_id=expert,
                num_domains=len(own),
                contribution_mean=float(np.mean(own)),
                contribution_std=float(np.std(own)),
                score=len(own) * float(np.mean(own)),
                member=expert in members[layer_id],
            )
            for expert, own in values.items()
        ]
        found += sorted(layer, key=lambda row: (-row.score, row.expert_id))
    return found


def depth_profile(audit: Audit) -> list[LayerDepth]:
    """Each layer's numbers by relative depth, so that models of other depths can be laid beside."""
    last = max(len(audit.layers) - 1, 1)
    return [
        LayerDepth(
            layer_id=layer.layer_id,
            depth=place / last,
            committee_size=len(layer.committee),
            coverage_lift=layer.coverage / layer.coverage_equal_weight,
            jaccard_mean=layer.jaccard_mean,
            gini=layer.gini,
        )
        for place, layer in enumerate(audit.layers)
    ]


def _by_layer(contributions: Iterable[Contribution]) -> dict[int, list[Contribution]]:
    found: dict[int, list[Contribution]] = defaultdict(list)
    for row in contributions:
        found[row.layer_id].append(row)
    return dict(sorted(found.items()))
