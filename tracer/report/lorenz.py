"""Audit -> Lorenz curves: how unevenly contribution spreads over the experts of a layer."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from tracer.records import Audit
from tracer.report.contributions import ContributionTable
from tracer.report.palette import NUM_STEPS, step
from tracer.report.words import fixed

__all__ = ["LORENZ_BOX", "LorenzCurve", "lorenz_curves", "lorenz_points", "lorenz_svg"]

LORENZ_BOX = 400  # side of the square the curves live in, SVG units
_LORENZ_TOLERANCE = 0.25  # SVG units a thinned curve may be off
_FIRST_LINE_STEP = 5  # paler steps of the scale are hard to see as thin lines


@dataclass(frozen=True, slots=True)
class LorenzCurve:
    """One layer's curve: ``path`` in SVG units, empty where the layer has no contribution."""

    layer_id: int
    gini: float
    step: int
    path: str


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


def lorenz_svg(curves: Sequence[LorenzCurve], *, heading: str = "") -> str:
    """The curves in their square; ``heading`` stands on top in a file that stands alone."""
    box, top = LORENZ_BOX, 12 + (24 if heading else 0)
    parts = [
        (
            f'<svg class="chart"'
            f' viewBox="-52 {-top} {box + 76} {box + top + 50}" role="img"'
            f' aria-label="Lorenz curves of {len(curves)} layers, each with its Gini coefficient">'
        )
    ]
    if heading:
        parts.append(f'<text class="heading" x="0" y="-18">{escape(heading)}</text>')
    for tick in (0, 25, 50, 75, 100):
        at = tick * box // 100
        parts += [
            f'<path class="grid" d="M0 {box - at}H{box}M{at} 0V{box}"/>',
            f'<text class="tick" x="-8" y="{box - at + 4}" text-anchor="end">{tick} %</text>',
            f'<text class="tick" x="{at}" y="{box + 18}" text-anchor="middle">{tick} %</text>',
        ]
    x, y, middle = round(box * 0.42), round(box * 0.555), box // 2
    parts += [
        (
            f'<text class="axis" x="{middle}" y="{box + 42}" text-anchor="middle">'
            "share of experts, least contributing first</text>"
        ),
        (
            f'<text class="axis" x="{-middle}" y="-42" text-anchor="middle"'
            ' transform="rotate(-90)">share of contribution</text>'
        ),
        f'<path class="equal" d="M0 {box}L{box} 0"/>',
        (
            f'<text class="axis" x="{x}" y="{y}" text-anchor="middle"'
            f' transform="rotate(-45 {x} {y})">all experts alike</text>'
        ),
    ]
    parts += [
        f'<path class="curve s{curve.step}" data-layer="{curve.layer_id}" d="{curve.path}">'
        f"<title>Layer {curve.layer_id}, Gini {fixed(curve.gini, 3)}</title></path>"
        for curve in curves
        if curve.path
    ]
    return "\n".join([*parts, "</svg>"]) + "\n"


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
