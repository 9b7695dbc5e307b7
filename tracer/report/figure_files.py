"""Audits -> figures as files: SVG documents by name, for papers.

The same code draws the page's charts, so page and files cannot differ.
"""

import re
from collections.abc import Iterator, Mapping, Sequence

from tracer.records import TOKEN_SCOPES, Audit
from tracer.report.chart_svg import chart_svg
from tracer.report.comparison import comparison_charts
from tracer.report.contributions import ContributionTable, contribution_table
from tracer.report.depth import depth_charts
from tracer.report.grid_svg import grid_svg
from tracer.report.heatmap import heatmap_data
from tracer.report.jaccard import jaccard_data, jaccard_matrix
from tracer.report.lorenz import lorenz_curves, lorenz_svg
from tracer.report.palette import figure_css

__all__ = ["FIGURE_NAMES", "figure_files"]

_KINDS = (
    "committee-size",
    "comparison-coverage",
    "comparison-lift",
    "contributions",
    "coverage",
    "coverage-lift",
    "domain-distance",
    "gini",
    "influence-density",
    "jaccard",
    "jaccard-depth",
    "lorenz",
    "member-ranks",
    "rank-variance",
    "task-specificity",
)
_MODES = ("gate", "paper", "reference")
# All files there can be: a folder of these and no others is an older one of ours.
FIGURE_NAMES = frozenset(
    f"{mode}-{tokens}-{kind}.{ending}"
    for mode in _MODES
    for tokens in TOKEN_SCOPES
    for kind in _KINDS
    for ending in ("svg", "png")
)


def figure_files(
    audits: Sequence[Audit], others: Mapping[tuple[str, str], Audit] | None = None
) -> dict[str, str]:
    """SVG documents by file name without ending; figures with nothing to draw are left out.

    Args:
        audits: of one run; their mode and token scope begin the names.
        others: audits of the run compared with, by mode and token scope.
    """
    files = {}
    for audit in audits:
        other = (others or {}).get((audit.mode, audit.tokens))
        for name, svg in _figures(audit, other):
            files[f"{audit.mode}-{audit.tokens}-{name}"] = _alone(svg)
    return files


def _figures(audit: Audit, other: Audit | None) -> Iterator[tuple[str, str]]:
    table = contribution_table(audit)
    charts = depth_charts(audit, table)
    if other is not None:
        charts += comparison_charts(audit, other)
    for chart in charts:
        if not chart.empty:
            yield chart.name, chart_svg(chart, heading=True)
    curves = lorenz_curves(audit, table)
    if any(curve.path for curve in curves):
        counted = (
            f"truncated to the top-{audit.rank_cutoff} lists"
            if audit.mode == "reference"
            else "all chosen experts"
        )
        yield "lorenz", lorenz_svg(curves, heading=f"Lorenz curves, {counted} (pale: first layer)")
    if table.layer_ids and table.num_columns:
        yield "contributions", _contributions(audit, table)
    jaccard = jaccard_data(audit)
    if len(jaccard["domains"]) > 1 and jaccard["layers"]:
        yield (
            "jaccard",
            grid_svg(
                jaccard_matrix(jaccard),
                rows=jaccard["domains"],
                columns=jaccard["domains"],
                scale=("0", "0.5", "1"),
                heading=f"Jaccard index of top-{audit.rank_cutoff} lists, mean over layers",
                axes=("", ""),
            ),
        )


def _contributions(audit: Audit, table: ContributionTable) -> str:
    data = heatmap_data(audit, table)
    shares, largest, size = data["shares"][0], data["largest"] or 1, data["experts"]
    values: list[list[float | None]] = [
        [(share / largest) ** 0.5 for share in shares[row * size : (row + 1) * size]]
        for row in range(len(data["layers"]))
    ]
    return grid_svg(
        values,
        rows=[str(layer_id) for layer_id in data["layers"]],
        columns=[str(expert) for expert in range(size)],
        scale=("0 %", f"{data['largest'] / 4e4:.1f} %", f"{data['largest'] / 1e4:.1f} %"),
        heading="Share of the layer's contribution, mean over domains (outlined: committee)",
        axes=("expert (colours follow the square root of the share)", "layer"),
        members=[(row, expert) for row, ids in enumerate(data["committees"]) for expert in ids],
    )


def _alone(svg: str) -> str:
    """A document of its own: its size, its style, a white ground."""
    start, rest = svg.split(">", maxsplit=1)
    found = re.search(r'viewBox="(\S+) (\S+) (\S+) (\S+)"', start)
    if found is None:  # every drawing has one
        raise AssertionError(start)
    x, y, width, height = found.groups()
    start = start.replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg"', 1)
    return (
        f'{start} width="{width}" height="{height}">\n<style>{figure_css()}</style>\n'
        f'<rect x="{x}" y="{y}" width="{width}" height="{height}" fill="#fff"/>{rest}'
    )
