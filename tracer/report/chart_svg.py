"""Charts as SVG: the same text for the page and for a file, byte for byte.

Colours are classes (``palette``), since the page's policy bans style attributes and a dark page
has other ones. Lines differ in dash and marker too, not in colour alone.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from html import escape

from tracer.report.chart import Chart, Series, chart_words

__all__ = ["chart_svg"]

_WIDTH, _LEFT, _RIGHT = 560, 54, 12
_PLOT, _BOTTOM, _LEGEND_LINE = 220, 44, 18
_LETTER = 7.0  # mean width of a letter of the legend, SVG units
_MOST_MARKED = 48  # with more layers than this, markers hide the line
_NUM_TICKS = 5
_MOST_LABELS = 14
_MARKERS = {
    "first": '<circle class="{c}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>',
    "second": '<path class="{c}" d="M{l:.1f} {t:.1f}h6v6h-6z"/>',
    "third": '<path class="{c}" d="M{x:.1f} {t:.1f}l3.6 6.2h-7.2z"/>',
    "reference": "",
}


def chart_svg(chart: Chart, *, heading: bool = False) -> str:
    """One chart.

    Args:
        chart: what to draw; with nothing to draw the axes stand empty.
        heading: put the chart's title on top, for a file that stands alone.
    """
    legend = _legend(chart)
    top = 14 + (22 if heading else 0) + _LEGEND_LINE * len(legend)
    height = top + _PLOT + _BOTTOM
    ticks = _ticks(*_reach(chart), from_low=chart.downward)
    axes = _Axes(chart, top, ticks[0], ticks[-1])
    parts = [
        (
            f'<svg class="chart" viewBox="0 0 {_WIDTH} {height}"'
            f' role="img" aria-label="{escape(chart_words(chart))}">'
        )
    ]
    if heading:
        parts.append(f'<text class="heading" x="{_LEFT}" y="18">{escape(chart.title)}</text>')
    for number, entries in enumerate(legend):
        y = top - 10 - _LEGEND_LINE * (len(legend) - 1 - number)
        parts += [_entry(series, x, y) for series, x in entries]
    parts += _grid(chart, axes, ticks)
    for series in chart.series:
        parts += _band(series, axes)
    for series in chart.series:
        parts += _line(series, axes)
    for dot in chart.dots:
        parts.append(
            f'<circle class="dot first" cx="{axes.x(dot.layer_id):.1f}"'
            f' cy="{axes.y(dot.value):.1f}" r="3.5"><title>{escape(dot.words)}</title></circle>'
        )
    return "\n".join([*parts, "</svg>"]) + "\n"


class _Axes:
    """Layer and value to places in the picture."""

    def __init__(self, chart: Chart, top: int, low: float, high: float) -> None:
        self.layer_ids = chart.layer_ids
        self.top, self.low, self.high = top, low, high
        self.downward = chart.downward
        self.first = min(chart.layer_ids, default=0)
        self.span = max(max(chart.layer_ids, default=0) - self.first, 1)
        self.room = _WIDTH - _LEFT - _RIGHT - 16

    def x(self, layer_id: int) -> float:
        return _LEFT + 8 + self.room * (layer_id - self.first) / self.span

    def y(self, value: float) -> float:
        part = (value - self.low) / (self.high - self.low)
        return self.top + _PLOT * (part if self.downward else 1 - part)


def _reach(chart: Chart) -> tuple[float, float]:
    """Least and greatest number that the axis must hold."""
    numbers = [dot.value for dot in chart.dots]
    for series in chart.series:
        numbers += [v for v in (*series.values, *series.low, *series.high) if v is not None]
    numbers += [edge for edge in (chart.floor, chart.ceiling) if edge is not None]
    low, high = min(numbers, default=0.0), max(numbers, default=1.0)
    return (low, high) if high > low else (low, low + 1)


def _ticks(low: float, high: float, *, from_low: bool = False) -> list[float]:
    """Round numbers, evenly apart, the first at or below ``low``, the last at or above ``high``.

    With ``from_low`` the first is ``low`` itself, since ranks begin with 1.
    """
    raw = (high - low) / _NUM_TICKS
    power = 10.0 ** math.floor(math.log10(raw))
    apart = next(power * n for n in (1, 2, 5, 10) if power * n >= raw * (1 - 1e-9))
    if from_low:
        return [
            low + number * apart for number in range(math.ceil((high - low) / apart - 1e-9) + 1)
        ]
    first, last = math.floor(low / apart + 1e-9), math.ceil(high / apart - 1e-9)
    return [number * apart for number in range(first, last + 1)]


def _grid(chart: Chart, axes: _Axes, ticks: Sequence[float]) -> Iterator[str]:
    digits = max(0, -math.floor(math.log10(ticks[1] - ticks[0]) + 1e-9))
    for tick in ticks:
        y = axes.y(tick)
        text = f"{100 * tick:.{max(digits - 2, 0)}f} %" if chart.share else f"{tick:.{digits}f}"
        yield f'<path class="grid" d="M{_LEFT} {y:.1f}H{_WIDTH - _RIGHT}"/>'
        yield f'<text class="tick" x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{text}</text>'
    bottom = axes.top + _PLOT
    every = max(1, math.ceil(len(chart.layer_ids) / _MOST_LABELS))
    for layer_id in chart.layer_ids[::every]:
        yield (
            f'<text class="tick" x="{axes.x(layer_id):.1f}" y="{bottom + 17}"'
            f' text-anchor="middle">{layer_id}</text>'
        )
    middle = _LEFT + (_WIDTH - _LEFT - _RIGHT) / 2
    yield f'<text class="axis" x="{middle}" y="{bottom + 36}" text-anchor="middle">layer</text>'
    at = axes.top + _PLOT / 2
    yield (
        f'<text class="axis" x="{-at}" y="12" text-anchor="middle" transform="rotate(-90)">'
        f"{escape(chart.unit)}</text>"
    )


def _band(series: Series, axes: _Axes) -> Iterator[str]:
    """The area between low and high, in as many pieces as gaps make; a bar for a lone layer."""
    edges = zip(axes.layer_ids, series.low, series.high, strict=False)
    for known, run in itertools.groupby(edges, lambda e: e[1] is not None and e[2] is not None):
        if not known:
            continue
        places = [(axes.x(i), axes.y(low or 0), axes.y(high or 0)) for i, low, high in run]
        if len(places) == 1:
            [(x, low, high)] = places
            places = [(x - 3, low, high), (x + 3, low, high)]
        there = " ".join(f"{x:.1f},{high:.1f}" for x, _, high in places)
        back = " ".join(f"{x:.1f},{low:.1f}" for x, low, _ in reversed(places))
        yield f'<polygon class="band {series.look}" points="{there} {back}"/>'


def _line(series: Series, axes: _Axes) -> Iterator[str]:
    points = zip(axes.layer_ids, series.values, strict=True)
    places = [(axes.x(i), None if v is None else axes.y(v)) for i, v in points]
    path, pen = [], "M"
    for x, y in places:
        if y is None:
            pen = "M"
        else:
            path.append(f"{pen}{x:.1f} {y:.1f}")
            pen = "L"
    if path:
        yield f'<path class="line {series.look}" d="{"".join(path)}"/>'
    if len(places) <= _MOST_MARKED:
        yield from (_marker(series.look, x, y) for x, y in places if y is not None)


def _marker(look: str, x: float, y: float) -> str:
    return _MARKERS[look].format(c=f"dot {look}", x=x, y=y, l=x - 3, t=y - 3)


def _legend(chart: Chart) -> list[list[tuple[Series, float]]]:
    """Lines of the legend: series and where each begins."""
    rows: list[list[tuple[Series, float]]] = []
    x = float(_WIDTH)
    for series in chart.series:
        wide = 46 + _LETTER * len(_legend_text(series))
        if x + wide > _WIDTH:
            rows.append([])
            x = _LEFT
        rows[-1].append((series, x))
        x += wide
    return rows


def _legend_text(series: Series) -> str:
    return f"{series.name} (band: {series.band})" if series.band else series.name


def _entry(series: Series, x: float, y: float) -> str:
    band = f'<path class="band {series.look}" d="M{x:.0f} {y - 9}h24v10h-24z"/>'
    return (
        (band if series.band else "")
        + f'<path class="line {series.look}" d="M{x:.0f} {y - 4}h24"/>'
        + _marker(series.look, x + 12, y - 4)
        + f'<text class="axis" x="{x + 30:.0f}" y="{y}">{escape(_legend_text(series))}</text>'
    )
