"""Audit -> how much the lists of two domains overlap, pair by pair and layer by layer."""

import math
from collections.abc import Iterable
from typing import TypedDict

from tracer.records import Audit
from tracer.report.contributions import domain_names, layer_place

__all__ = ["JaccardData", "jaccard_data", "jaccard_matrix"]


class JaccardData(TypedDict):
    """Jaccard index per pair of domains.

    values: [0] is the mean over layers, [1 + n] the n-th layer; pair (i, j), i < j, is number
        j * (j - 1) / 2 + i; None where not known
    random: the expectation for two random sets, in the same order as values
    """

    domains: list[str]
    layers: list[int]
    values: list[list[float | None]]
    random: list[float | None]


def jaccard_data(audit: Audit) -> JaccardData:
    """Overlap of the domains' lists: mean over layers, then each layer."""
    domains = domain_names(
        audit, (name for row in audit.overlaps for name in (row.domain_a, row.domain_b))
    )
    layers = sorted(audit.layers, key=lambda layer: layer.layer_id)
    place = {layer.layer_id: index for index, layer in enumerate(layers)}
    number = {domain: index for index, domain in enumerate(domains)}
    num_pairs = len(domains) * (len(domains) - 1) // 2
    values: list[list[float | None]] = [[None] * num_pairs for _ in layers]
    for row in audit.overlaps:
        pair = _pair(number[row.domain_a], number[row.domain_b])
        values[layer_place(place, row.layer_id)][pair] = _rounded(row.jaccard)
    means = [_mean(layer[pair] for layer in values) for pair in range(num_pairs)]
    random = [_rounded(layer.jaccard_random) for layer in layers]
    return {
        "domains": list(domains),
        "layers": [layer.layer_id for layer in layers],
        "values": [means, *values],
        "random": [_mean(random), *random],
    }


def jaccard_matrix(data: JaccardData) -> list[list[float | None]]:
    """The means over layers as a square table; the diagonal is None."""
    means, size = data["values"][0], range(len(data["domains"]))
    return [
        [None if row == column else means[_pair(row, column)] for column in size] for row in size
    ]


def _pair(one: int, other: int) -> int:
    """Number of a pair of domains in the order (0, 1), (0, 2), (1, 2), (0, 3), ..."""
    low, high = sorted((one, other))
    return high * (high - 1) // 2 + low


def _rounded(value: float) -> float | None:
    return round(value, 4) if math.isfinite(value) else None


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return round(math.fsum(known) / len(known), 4) if known else None
