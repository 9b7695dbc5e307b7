"""A chart as plain data: lines over layers, or dots; its table and its words.

``chart_svg`` draws it, the page offers its table, screen readers get its words: all three say the
same numbers.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import TypedDict

from tracer.report.words import fixed, plural

__all__ = ["Chart", "Dot", "Series", "Table", "chart_table", "chart_words", "finite"]


class Table(TypedDict):
    """Rows under their column names: what a figure shows, to be read or downloaded."""

    columns: list[str]
    rows: list[list[str | float | None]]


@dataclass(frozen=True, slots=True)
class Series:
    """One line over layers.

    values: one per layer of the chart; None leaves a gap
    look: 'first', 'second' and 'third' are measured, 'reference' is what they are held against
    low, high: an interval or band around every value; empty where there is none
    band: what the band is, in words
    """

    name: str
    values: tuple[float | None, ...]
    look: str = "first"
    low: tuple[float | None, ...] = ()
    high: tuple[float | None, ...] = ()
    band: str = ""


@dataclass(frozen=True, slots=True)
class Dot:
    """One dot of a chart: the layer, its height, what it is."""

    layer_id: int
    value: float
    words: str


@dataclass(frozen=True, slots=True)
class Chart:
    """Lines (``series``) or ``dots`` over layers.

    name: of its file and of its place on the page
    layer_ids: ascending; every series has one value for each
    digits: decimals in words and tables; share: values are shares, their axis in per cent
    floor, ceiling: the axis reaches at least so far
    downward: small values stand on top, as ranks do
    note: what a reader must know to read it
    """

    name: str
    title: str
    unit: str
    layer_ids: tuple[int, ...]
    series: tuple[Series, ...] = ()
    dots: tuple[Dot, ...] = ()
    digits: int = 3
    share: bool = False
    floor: float | None = None
    ceiling: float | None = None
    downward: bool = False
    note: str = ""

    @property
    def empty(self) -> bool:
        """Whether nothing can be drawn."""
        return not self.dots and all(v is None for s in self.series for v in s.values)


def finite(value: float | None) -> float | None:
    """The value, or None where it is infinite or not defined."""
    return value if value is not None and math.isfinite(value) else None


def chart_table(chart: Chart) -> Table:
    """A row per layer, a column per line and two for its band; full precision."""
    columns = ["layer"]
    values: list[list[float | None]] = [[*chart.layer_ids]]
    for series in chart.series:
        columns.append(series.name)
        values.append([*series.values])
        if series.low:
            columns += [f"{series.name}, {series.band}, {end}" for end in ("low", "high")]
            values += [[*series.low], [*series.high]]
    rows: list[list[str | float | None]] = [list(row) for row in zip(*values, strict=True)]
    return {"columns": columns, "rows": rows}


def chart_words(chart: Chart) -> str:
    """The chart for those who cannot see it: each line's middle and its ends, with layers."""
    if chart.dots:
        heights = [dot.value for dot in chart.dots]
        return (
            f"{chart.title}: {plural(len(heights), 'dot')} from {_said(chart, min(heights))}"
            f" to {_said(chart, max(heights))}."
        )
    lines = [f"{s.name} {_span(chart, s.values)}" for s in chart.series]
    return f"{chart.title} over {plural(len(chart.layer_ids), 'layer')}: {'; '.join(lines)}."


def _span(chart: Chart, values: Sequence[float | None]) -> str:
    known = [(v, layer) for v, layer in zip(values, chart.layer_ids, strict=True) if v is not None]
    if not known:
        return "not defined"
    (low, low_layer), (high, high_layer) = min(known), max(known)
    if _said(chart, low) == _said(chart, high):
        return f"{_said(chart, low)} in every layer"
    middle = median(value for value, _ in known)
    return (
        f"from {_said(chart, low)} (layer {low_layer}) to {_said(chart, high)} (layer"
        f" {high_layer}), median {_said(chart, middle)}"
    )


def _said(chart: Chart, value: float) -> str:
    return f"{100 * value:.1f} %" if chart.share else fixed(value, chart.digits)
