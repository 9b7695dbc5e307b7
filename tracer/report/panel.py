"""All that the page shows of one audit: words, figures, and the numbers behind each figure."""

import re
from collections.abc import Sequence

from tracer.records import Audit, LayerAudit
from tracer.report import words
from tracer.report.beside_chance import (
    chance_layers,
    chance_of,
    chance_table,
    specificity_table,
    verdict_words,
)
from tracer.report.chart import Chart, Table, chart_table, finite
from tracer.report.chart_svg import chart_svg
from tracer.report.comparison import compare_audits, comparison_charts, comparison_table
from tracer.report.contributions import contribution_table
from tracer.report.depth import depth_charts
from tracer.report.heatmap import SHARE_UNIT, heatmap_data
from tracer.report.jaccard import jaccard_data, jaccard_matrix
from tracer.report.lorenz import lorenz_curves, lorenz_svg

__all__ = ["file_name", "panel", "roles_section"]

# Beyond this a table of all pairs is wider than a page; a canvas shows them instead.
_MOST_IN_TABLE = 16
_LAYER_COLUMNS = (
    "rank_mean",
    "rank_var",
    "coverage",
    "coverage_equal_weight",
    "influence_density",
    "influence_density_equal_weight",
    "num_candidates",
    "fallback_used",
    "jaccard_mean",
    "jaccard_random",
    "gini",
)
_MEMBER_COLUMNS = ("expert_id", "presence", "rank_mean", "rank_var", "contribution_mean")


def panel(audit: Audit, number: int, *, other: Audit | None, same_model: bool) -> dict[str, object]:
    """What the template needs of an audit.

    Args:
        audit: the audit.
        number: its place on the page; ids of further audits end in '-2', '-3', ...
        other: the same audit of the run compared with; None compares nothing.
        same_model: expert ids mean the same in both.
    """
    contributions = contribution_table(audit)
    layers = sorted(audit.layers, key=lambda layer: layer.layer_id)
    jaccard = jaccard_data(audit)
    heatmap = heatmap_data(audit, contributions)
    curves = lorenz_curves(audit, contributions)
    charts = [chart for chart in depth_charts(audit, contributions) if not chart.empty]
    tables = {chart.name: chart_table(chart) for chart in charts if chart.series}
    tables |= {
        "committees": _committees(layers),
        "members": _members(layers),
    }
    chance, by_chance = chance_of(audit), chance_layers(audit)
    if chance is not None:
        tables["chance"] = chance_table(chance.layers)
        tables["specificity"] = specificity_table(chance.layers)
    small = len(jaccard["domains"]) <= _MOST_IN_TABLE
    found: dict[str, object] = {
        "number": number,
        "suffix": "" if number == 1 else f"-{number}",
        "label": words.label(audit),
        "audit": audit,
        "layers": layers,
        "summary": words.summary(audit),
        "domains": contributions.domains,
        "matrix": jaccard_matrix(jaccard) if small else None,
        "charts": _drawn(charts),
        "curves": curves,
        "lorenz": lorenz_svg(curves),
        "truncation_gini": 1 - audit.rank_cutoff / audit.num_experts if audit.num_experts else None,
        "largest_share": heatmap["largest"] / SHARE_UNIT,
        "chance": chance,
        "by_chance": by_chance,
        "membership": {layer_id: dict(one.membership) for layer_id, one in by_chance.items()},
        "verdicts": verdict_words(chance) if chance else (),
        "comparison": None,
    }
    if other is not None:
        comparison = compare_audits(audit, other, same_model=same_model)
        both = [chart for chart in comparison_charts(audit, other) if not chart.empty]
        tables |= {chart.name: chart_table(chart) for chart in both}
        tables["comparison"] = comparison_table(comparison)
        found |= {"comparison": comparison, "comparison_charts": _drawn(both)}
    found["data"] = {
        "file": file_name(audit),
        "heatmap": heatmap,
        "jaccard": jaccard,
        "tables": tables,
    }
    return found


def _drawn(charts: Sequence[Chart]) -> list[dict[str, object]]:
    return [{"chart": chart, "svg": chart_svg(chart)} for chart in charts]


def file_name(audit: Audit) -> str:
    """How the names of downloads begin: letters, digits, dots and dashes."""
    run = re.sub(r"[^\w.-]+", "-", audit.run_id, flags=re.ASCII).strip(".-") or "run"
    return f"{run[:60]}-{audit.mode}-{audit.tokens}"


def _committees(layers: Sequence[LayerAudit]) -> Table:
    """A row per layer: members and every number, in full precision."""
    rows: list[list[str | float | None]] = []
    for layer in layers:
        row: list[str | float | None] = [layer.layer_id, " ".join(map(str, layer.committee))]
        row.append(len(layer.committee))
        rows.append(row + [finite(getattr(layer, name)) for name in _LAYER_COLUMNS])
    return {"columns": ["layer_id", "committee", "committee_size", *_LAYER_COLUMNS], "rows": rows}


def _members(layers: Sequence[LayerAudit]) -> Table:
    rows: list[list[str | float | None]] = [
        [layer.layer_id, *(finite(getattr(member, name)) for name in _MEMBER_COLUMNS)]
        for layer in layers
        for member in layer.members
    ]
    return {"columns": ["layer_id", *_MEMBER_COLUMNS], "rows": rows}


def roles_section(table: Table, audit: Audit) -> dict[str, object]:
    """What the template needs of token roles; members are those of ``audit``."""
    return {
        "table": table,
        "file": file_name(audit),
        "layers": list(dict.fromkeys(row[0] for row in table["rows"])),
        "members": {str(layer.layer_id): list(layer.committee) for layer in audit.layers},
    }
