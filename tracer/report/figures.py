"""Audit -> the data behind each figure: plain lists, rounded, in a fixed order.

The template turns them into SVG and tables, ``report.js`` into the heatmap. Nothing here
knows markup.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict

from tracer.errors import DamagedDataError
from tracer.records import Audit
from tracer.report.palette import NUM_STEPS, step

__all__ = [
    "LORENZ_BOX",
    "SHARE_UNIT",
    "ContributionTable",
    "HeatmapData",
    "JaccardData",
    "LorenzCurve",
    "contribution_table",
    "heatmap_data",
    "jaccard_data",
    "jaccard_matrix",
    "lorenz_curves",
    "lorenz_points",
]

LORENZ_BOX = 400  # side of the square the curves live in, SVG units
SHARE_UNIT = 1_000_000  # shares travel as integers, parts per million of the layer
_LORENZ_TOLERANCE = 0.25  # SVG units a thinned curve may be off
_FIRST_LINE_STEP = 5  # paler steps of the scale are hard to see as thin lines
_ALL_DOMAINS = "Mean over domains"


@dataclass(frozen=True, slots=True)
class ContributionTable:
    """The audit's contributions as dense tables.

    domains: labels; layer_ids: ascending; num_columns: experts per layer
    by_domain: per domain one flat list [layer * num_columns + expert], 0 where nothing counted
    mean: the same list, mean over the audit's domains
    listed: per domain and layer, (expert id, rank) of the experts in the domain's list
    """

    domains: tuple[str, ...]
    layer_ids: tuple[int, ...]
    num_columns: int
    by_domain: tuple[list[float], ...]
    mean: list[float]
    listed: tuple[tuple[list[tuple[int, int]], ...], ...]

    def layer(self, values: list[float], index: int) -> list[float]:
        """One layer's values, expert 0 first."""
        return values[index * self.num_columns : (index + 1) * self.num_columns]


@dataclass(frozen=True, slots=True)
class LorenzCurve:
    """One layer's curve: ``path`` in SVG units, empty where the layer has no contribution."""

    layer_id: int
    gini: float
    step: int
    path: str


class HeatmapData(TypedDict):
    """What ``report.js`` draws: one view per domain after the mean over domains.

    shares: per view a flat list [layer * experts + expert], parts per million of the layer
    largest: the largest of all shares
    totals: per view and layer, the layer's total contribution
    listed: per view and layer, expert ids and ranks in turn (the mean has none)
    """

    views: list[str]
    layers: list[int]
    experts: int
    cutoff: int
    committees: list[list[int]]
    shares: list[list[int]]
    largest: int
    totals: list[list[float]]
    listed: list[list[list[int]]]


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


def contribution_table(audit: Audit) -> ContributionTable:
    """Lay the audit's contributions out by domain, layer and expert.

    In reference mode only listed experts count, as in the audit's own Gini.
    """
    every_chosen = audit.mode != "reference"
    rows = [c for c in audit.contributions if every_chosen or c.rank <= audit.rank_cutoff]
    domains = _domains(audit, (row.domain for row in rows))
    layer_ids = tuple(sorted(layer.layer_id for layer in audit.layers))
    num_columns = max([audit.num_experts, *(row.expert_id + 1 for row in rows)])
    place = {layer_id: index for index, layer_id in enumerate(layer_ids)}
    domain_place = {domain: index for index, domain in enumerate(domains)}
    size = len(layer_ids) * num_columns
    by_domain = tuple([0.0] * size for _ in domains)
    listed: tuple[tuple[list[tuple[int, int]], ...], ...] = tuple(
        tuple([] for _ in layer_ids) for _ in domains
    )
    for row in rows:
        domain, layer = domain_place[row.domain], _layer_place(place, row.layer_id)
        by_domain[domain][layer * num_columns + row.expert_id] = row.contribution
        if row.rank <= audit.rank_cutoff:
            listed[domain][layer].append((row.expert_id, row.rank))
    num_domains = max(audit.num_domains, 1)
    mean = [math.fsum(values) / num_domains for values in zip(*by_domain, strict=True)]
    return ContributionTable(
        domains, layer_ids, num_columns, by_domain, mean or [0.0] * size, listed
    )


def heatmap_data(audit: Audit, table: ContributionTable) -> HeatmapData:
    """Contributions as shares of their layer, per view."""
    views = (table.mean, *table.by_domain)
    totals = [[math.fsum(table.layer(v, i)) for i in range(len(table.layer_ids))] for v in views]
    shares = [
        [
            _share(value, total)
            for index, total in enumerate(view_totals)
            for value in table.layer(view, index)
        ]
        for view, view_totals in zip(views, totals, strict=True)
    ]
    committees = {layer.layer_id: sorted(layer.committee) for layer in audit.layers}
    return {
        "views": [_ALL_DOMAINS, *table.domains],
        "layers": list(table.layer_ids),
        "experts": table.num_columns,
        "cutoff": audit.rank_cutoff,
        "committees": [committees[layer_id] for layer_id in table.layer_ids],
        "shares": shares,
        "largest": max((max(view, default=0) for view in shares), default=0),
        "totals": [[_significant(total) for total in view] for view in totals],
        "listed": [
            [[number for pair in sorted(pairs) for number in pair] for pairs in layers]
            for layers in ((), *table.listed)
        ],
    }


def jaccard_data(audit: Audit) -> JaccardData:
    """Overlap of the domains' lists: mean over layers, then each layer."""
    domains = _domains(
        audit, (name for row in audit.overlaps for name in (row.domain_a, row.domain_b))
    )
    layers = sorted(audit.layers, key=lambda layer: layer.layer_id)
    place = {layer.layer_id: index for index, layer in enumerate(layers)}
    number = {domain: index for index, domain in enumerate(domains)}
    num_pairs = len(domains) * (len(domains) - 1) // 2
    values: list[list[float | None]] = [[None] * num_pairs for _ in layers]
    for row in audit.overlaps:
        pair = _pair(number[row.domain_a], number[row.domain_b])
        values[_layer_place(place, row.layer_id)][pair] = _rounded(row.jaccard)
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


def lorenz_curves(audit: Audit, table: ContributionTable) -> list[LorenzCurve]:
    """One curve per layer, of the domain-mean contributions over all experts."""
    ginis = {layer.layer_id: layer.gini for layer in audit.layers}
    last = max(len(table.layer_ids) - 1, 1)
    span = 1 - _FIRST_LINE_STEP / (NUM_STEPS - 1)
    return [
        LorenzCurve(
            layer_id=layer_id,
            gini=ginis[layer_id],
            step=_FIRST_LINE_STEP + step(index / last * span),
            path=_path(lorenz_points(table.layer(table.mean, index))),
        )
        for index, layer_id in enumerate(table.layer_ids)
    ]


def lorenz_points(values: Sequence[float]) -> list[tuple[float, float]]:
    """Share of experts against their share of the contribution, least contributing first.

    Both run from 0 to 1. Empty where nothing was contributed.
    """
    total = math.fsum(values)
    if not total > 0:
        return []
    points = [(0.0, 0.0)]
    running = 0.0
    for number, value in enumerate(sorted(values), start=1):
        running += value
        points.append((number / len(values), min(running / total, 1.0)))
    return points


def _domains(audit: Audit, used: Iterable[str]) -> tuple[str, ...]:
    """The audit's domains in its order, then any other a row names."""
    named = [domain.domain for domain in audit.domains]
    return tuple(dict.fromkeys([*named, *sorted(set(used) - set(named))]))


def _pair(one: int, other: int) -> int:
    """Number of a pair of domains in the order (0, 1), (0, 2), (1, 2), (0, 3), ..."""
    low, high = sorted((one, other))
    return high * (high - 1) // 2 + low


def _layer_place(place: Mapping[int, int], layer_id: int) -> int:
    if layer_id not in place:
        raise DamagedDataError(f"the audit has rows of layer {layer_id}, and no such layer")
    return place[layer_id]


def _share(value: float, total: float) -> int:
    return round(SHARE_UNIT * value / total) if total > 0 else 0


def _significant(value: float) -> float:
    """Five significant digits."""
    return float(f"{value:.5g}")


def _rounded(value: float) -> float | None:
    return round(value, 4) if math.isfinite(value) else None


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return round(math.fsum(known) / len(known), 4) if known else None


def _path(points: Sequence[tuple[float, float]]) -> str:
    """SVG path through the points, without those a straight line passes anyway."""
    scaled = [(x * LORENZ_BOX, (1 - y) * LORENZ_BOX) for x, y in points]
    kept = scaled[:1]
    since = 1  # first point after the last one kept
    for index in range(1, len(scaled) - 1):
        if not _passes(kept[-1], scaled[since : index + 1], scaled[index + 1]):
            kept.append(scaled[index])
            since = index + 1
    kept += scaled[1:][-1:]
    return "".join(f"{'L' if i else 'M'}{x:.1f} {y:.1f}" for i, (x, y) in enumerate(kept))


def _passes(
    start: tuple[float, float], between: Sequence[tuple[float, float]], end: tuple[float, float]
) -> bool:
    """Whether the line from start to end is within the tolerance of every point between."""
    slope = (end[1] - start[1]) / (end[0] - start[0])
    return all(abs(start[1] + slope * (x - start[0]) - y) <= _LORENZ_TOLERANCE for x, y in between)
