"""Audit -> the shares that the heatmap shows: by domain, layer and expert."""

import math
from typing import TypedDict

from tracer.records import Audit
from tracer.report.contributions import ContributionTable

__all__ = ["SHARE_UNIT", "HeatmapData", "heatmap_data"]

SHARE_UNIT = 1_000_000  # shares travel as integers, parts per million of the layer
_ALL_DOMAINS = "Mean over domains"


class HeatmapData(TypedDict):
    """What ``figures.js`` draws: one view per domain after the mean over domains.

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


def _share(value: float, total: float) -> int:
    return round(SHARE_UNIT * value / total) if total > 0 else 0


def _significant(value: float) -> float:
    """Five significant digits."""
    return float(f"{value:.5g}")
