"""Draws of one layer: its numbers as recorded, by chance, and with other requests.

Three kinds of draws, the same number of each:

experts    expert ids exchanged in each domain and layer on its own: each domain keeps its
           concentration, and what domains have in common is chance
labels     domains exchanged over requests, in all layers alike: no domain differs from another
requests   every request counts as often as a Poisson variable of mean 1 says, in all layers alike

Label draws are no null of agreement: a committee that all domains share survives them.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tracer.analysis.committee_draws import CommitteeDraws, committee_draws, list_overlap
from tracer.analysis.layers import Rules
from tracer.analysis.request_usage import RequestUsage, domain_contributions
from tracer.analysis.same_token import SameTokenUsage, same_token_distance
from tracer.analysis.task_specificity import task_specificity, unit_vectors

__all__ = [
    "BOUNDS",
    "INVERSE",
    "SAME_TOKEN",
    "STATISTICS",
    "DrawnLayer",
    "draw_layer",
    "eci_distance",
    "label_draws",
    "row_means",
]

Floats = npt.NDArray[np.float64]
Key = tuple[str, str, str]

# (statistic, null, alternative), in the order of results.
STATISTICS: tuple[Key, ...] = (
    ("eci_distance", "experts", "less"),
    ("jaccard_mean", "experts", "greater"),
    ("presence_top", "experts", "greater"),
    ("coverage_lift", "experts", "greater"),
    ("gini", "experts", "greater"),
    ("committee_size", "experts", "two-sided"),
    ("num_candidates", "experts", "two-sided"),
    ("rank_mean", "experts", "two-sided"),
    ("rank_var", "experts", "two-sided"),
    ("coverage", "experts", "two-sided"),
    ("influence_density", "experts", "two-sided"),
    ("jaccard_mean", "labels", "less"),
    ("eci_distance", "labels", "greater"),
    ("task_specificity", "labels", "greater"),
)
# Where tokens are compared with their like.
SAME_TOKEN: Key = ("same_token_distance", "labels", "greater")
INVERSE = "influence_density"  # may be infinite, so that its inverse is drawn and compared
# Least and largest value of those statistics whose intervals have their bias taken off. The others
# are of lists and committees, which move in jumps.
BOUNDS = {
    "eci_distance": (0.0, 1.0),
    "gini": (0.0, 1.0),
    "task_specificity": (-1.0, 1.0),
    SAME_TOKEN[0]: (0.0, math.inf),
}


@dataclass(frozen=True, slots=True)
class DrawnLayer:
    """Of one layer: recorded values, values under each null, and with requests drawn anew.

    by (statistic, null); specificity: of each domain, [draws, domains], the recorded first
    """

    recorded: dict[str, float]
    chance: dict[tuple[str, str], Floats]
    again: dict[str, Floats]
    specificity: Floats
    specificity_again: Floats
    membership: Floats
    with_rows: npt.NDArray[np.bool_]


def label_draws(domain: npt.NDArray[np.int64], draws: int, seed: int) -> npt.NDArray[np.int16]:
    """Domains of requests, the recorded ones, then exchanged: [1 + draws, requests]."""
    rng = np.random.default_rng([seed, 1])
    labels = np.empty((draws + 1, len(domain)), dtype=np.int16)
    labels[0] = domain
    for row in labels[1:]:
        row[:] = rng.permutation(labels[0])
    return labels


def draw_layer(
    usage: RequestUsage,
    rules: Rules,
    rng: np.random.Generator,
    *,
    labels: npt.NDArray[np.int16],
    weights: npt.NDArray[np.uint8],
    same_token: SameTokenUsage | None = None,
) -> DrawnLayer:
    """Draw one layer.

    Args:
        usage: of its requests.
        rules: how committees are chosen; ``num_domains`` and ``reference`` are not read.
        rng: of the names of its experts.
        labels: from ``label_draws``, the same for every layer.
        weights: how often requests count, [requests, draws], the same for every layer.
        same_token: what the tokens of its requests got beside their like, if that is asked.
    """
    depth, num_domains = rules.rank_cutoff, int(labels[0].max()) + 1

    def committees(
        contributions: Floats, present: npt.NDArray[np.bool_] | None = None
    ) -> CommitteeDraws:
        return committee_draws(
            contributions,
            rank_cutoff=depth,
            min_presence=rules.min_presence,
            present=present,
        )

    labelled, _ = domain_contributions(usage, labels, num_domains)
    recorded = labelled[:1]
    renamed = rng.permuted(np.repeat(recorded, weights.shape[1], axis=0), axis=2)
    drawn, there = domain_contributions(usage, labels[:1], num_domains, weights)
    units = unit_vectors(usage.weight_sum)
    specificity = task_specificity(units, labels, num_domains)
    specificity_again = task_specificity(units, labels[:1], num_domains, weights)
    now, by_chance, again = committees(recorded), committees(renamed), committees(drawn, there)
    distances = eci_distance(labelled)
    means = row_means(specificity)
    values = _values(now) | {"eci_distance": distances[:1], "task_specificity": means[:1]}
    chance = {(name, "experts"): drawn for name, drawn in _values(by_chance).items()}
    chance |= {
        ("eci_distance", "experts"): eci_distance(renamed),
        ("jaccard_mean", "labels"): list_overlap(labelled[1:], depth),
        ("eci_distance", "labels"): distances[1:],
        ("task_specificity", "labels"): means[1:],
    }
    redrawn = _values(again) | {
        "eci_distance": eci_distance(drawn),
        "task_specificity": row_means(specificity_again),
    }
    if same_token is not None:
        name, null, _ = SAME_TOKEN
        apart = same_token_distance(same_token, labels, num_domains)
        values[name], chance[name, null] = apart[:1], apart[1:]
        redrawn[name] = same_token_distance(same_token, labels[:1], num_domains, weights)
    return DrawnLayer(
        recorded={name: float(value[0]) for name, value in values.items()},
        chance=chance,
        again=redrawn,
        specificity=specificity,
        specificity_again=specificity_again,
        membership=again.members.mean(axis=0),
        with_rows=~np.isnan(recorded[0]).all(axis=1),
    )


def _values(found: CommitteeDraws) -> dict[str, Floats]:
    names = {name for name, null, _ in STATISTICS if null == "experts"} - {"eci_distance"}
    values = {name: np.asarray(getattr(found, name), dtype=np.float64) for name in names}
    density = values[INVERSE]
    values[INVERSE] = np.divide(1, density, out=np.full(len(density), np.nan), where=density > 0)
    return values


def row_means(values: Floats) -> Floats:
    """Mean of each row over its numbers, NaN where it has none."""
    there = ~np.isnan(values)
    total, count = np.where(there, values, 0).sum(axis=1), there.sum(axis=1)
    means = np.full(len(values), np.nan)
    np.divide(total, count, out=means, where=count > 0)
    return means


def eci_distance(contributions: Floats) -> Floats:
    """Mean distance of every two domains' contributions, 0 (same) to 1 (no expert shared).

    Half the summed absolute differences of experts' shares of the domain's contribution (total
    variation), over pairs of domains that have any: float64 [draws], NaN without a pair.

    Args:
        contributions: [draws, domains, experts]; NaN counts as 0.
    """
    values = np.nan_to_num(contributions, nan=0.0)
    total = values.sum(axis=2, keepdims=True)
    there = total[..., 0] > 0
    shares = np.divide(values, total, out=np.zeros_like(values), where=total > 0)
    far, pairs = np.zeros(len(values)), np.zeros(len(values))
    for one in range(values.shape[1] - 1):
        both = there[:, one, None] & there[:, one + 1 :]
        apart = np.abs(shares[:, one, None] - shares[:, one + 1 :]).sum(axis=2) / 2
        far += (apart * both).sum(axis=1)
        pairs += both.sum(axis=1)
    means = np.full(len(values), np.nan)
    np.divide(far, pairs, out=means, where=pairs > 0)
    return means
