"""A grid of coloured cells as SVG: contributions of experts by layer, overlaps of domains.

For files; on the page a canvas shows the same cells, since an SVG of a large model has thousands of
elements. Here cells of one colour are one path, so a file stays small.
"""

from collections import defaultdict
from collections.abc import Collection, Sequence
from html import escape

from tracer.report.palette import NUM_STEPS, scale_hex, step

__all__ = ["grid_svg"]

_LETTER = 6.6  # mean width of a letter, SVG units
_BOLD_LETTER = 9.0  # of the heading
_LONGEST = 24  # letters of a label
_SCALE_WIDTH = 210
_ROOM = 28  # between column labels that stand upright
_LEAST_BODY = 240


def grid_svg(
    values: Sequence[Sequence[float | None]],
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    scale: Sequence[str],
    heading: str,
    axes: tuple[str, str],
    members: Collection[tuple[int, int]] = (),
) -> str:
    """Rows by columns.

    Args:
        values: per row and column, 0 to 1 of the colour scale; None leaves the cell empty.
        rows: their names.
        columns: their names; numbers stand upright, longer names are turned.
        scale: what stands below the colour scale, evenly apart.
        heading: what the figure is.
        axes: what columns and rows are.
        members: cells (row, column) with an outline.
    """
    turned = any(not name.isdigit() for name in columns)
    wide = max(4.0, min(24.0, 900 / max(len(columns), 1)))
    high = max(7.0, min(24.0, 700 / max(len(rows), 1)))
    left = 26 + _LETTER * min(max(map(len, rows), default=1), _LONGEST)
    above = _LETTER * min(max(map(len, columns), default=1), _LONGEST) if turned else 14.0
    top = 92 + above
    right = above if turned else 12
    width = max(
        left + max(wide * len(columns), _LEAST_BODY) + right, 24 + _BOLD_LETTER * len(heading)
    )
    height = top + high * len(rows) + 12
    parts = [
        (
            f'<svg class="chart"'
            f' viewBox="0 0 {width:.0f} {height:.0f}" role="img" aria-label="{escape(heading)}">'
        ),
        f'<text class="heading" x="12" y="20">{escape(heading)}</text>',
        *_scale(scale, left),
        f'<text class="axis" x="{left:.0f}" y="82">{escape(axes[0])}</text>',
        (
            f'<text class="axis" x="{-(top + height) / 2:.0f}" y="14" text-anchor="middle"'
            f' transform="rotate(-90)">{escape(axes[1])}</text>'
        ),
    ]
    upright = next(n for n in (1, 2, 4, 8, 16, 32, 64, 128) if n * wide >= _ROOM)
    every = 1 if turned else upright
    for column in range(0, len(columns), max(every, _every(wide))):
        x, text = left + (column + 0.5) * wide, escape(_short(columns[column]))
        at = f"{top - 6:.1f}"
        how = f'transform="rotate(-60 {x:.1f} {at})"' if turned else 'text-anchor="middle"'
        parts.append(f'<text class="tick" x="{x:.1f}" y="{at}" {how}>{text}</text>')
    for row in range(0, len(rows), _every(high)):
        y = top + (row + 0.5) * high + 4
        parts.append(
            f'<text class="tick" x="{left - 6:.1f}" y="{y:.1f}" text-anchor="end">'
            f"{escape(_short(rows[row]))}</text>"
        )
    parts += _cells(values, left, top, wide, high)
    parts += [
        f'<path class="member" d="M{left + column * wide + 0.7:.1f} {top + row * high + 0.7:.1f}'
        f'h{wide - 1.4:.1f}v{high - 1.4:.1f}h{1.4 - wide:.1f}z"/>'
        for row, column in sorted(members)
    ]
    return "\n".join([*parts, "</svg>"]) + "\n"


def _cells(
    values: Sequence[Sequence[float | None]], left: float, top: float, wide: float, high: float
) -> list[str]:
    """One path for all cells of one step of the scale."""
    by_step: dict[int, list[str]] = defaultdict(list)
    for row, line in enumerate(values):
        for column, value in enumerate(line):
            if value is not None:
                place = f"M{left + column * wide:.1f} {top + row * high:.1f}"
                by_step[step(value)].append(f"{place}h{wide:.1f}v{high:.1f}h-{wide:.1f}z")
    return [
        f'<path fill="{scale_hex(number)}" stroke="#fff" stroke-width="0.4" d="{"".join(found)}"/>'
        for number, found in sorted(by_step.items())
    ]


def _scale(labels: Sequence[str], left: float) -> list[str]:
    wide = _SCALE_WIDTH / NUM_STEPS
    parts = [
        f'<rect fill="{scale_hex(number)}" x="{left + number * wide:.1f}" y="34"'
        f' width="{wide + 0.3:.1f}" height="10"/>'
        for number in range(NUM_STEPS)
    ]
    last = max(len(labels) - 1, 1)
    return parts + [
        f'<text class="tick" x="{left + _SCALE_WIDTH * place / last:.1f}" y="60"'
        f' text-anchor="{"start" if not place else "end" if place == last else "middle"}">'
        f"{escape(text)}</text>"
        for place, text in enumerate(labels)
    ]


def _every(size: float) -> int:
    """Which labels have room: every first, second, ..."""
    return next(number for number in (1, 2, 4, 8, 16) if number * size >= 12)  # noqa: PLR2004


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST else name[: _LONGEST - 1] + "…"
