"""The colours of the report: one sequential scale and four lines, for light and for dark pages.

Low to high runs away from the page's background: pale to dark on a light page, dark to pale on
a dark one. Lightness is monotone, so the order survives colour blindness and grey printing. The
lines (after Okabe and Ito) stay apart in the three kinds of colour blindness, and differ in dash
and marker as well.
"""

__all__ = [
    "LINES",
    "NUM_STEPS",
    "PAGES",
    "STOPS",
    "figure_css",
    "line_css",
    "scale_css",
    "scale_hex",
    "step",
]

NUM_STEPS = 21
STOPS = {
    "light": (
        "#eef7f1",
        "#bfe6cd",
        "#80d2b4",
        "#40b3ad",
        "#338ca6",
        "#36649c",
        "#403a78",
        "#2b1b38",
    ),
    "dark": (
        "#211d33",
        "#393467",
        "#37609a",
        "#338ca6",
        "#40b3ad",
        "#80d2b4",
        "#e2f6e8",
    ),
}
# Backgrounds the lines are drawn on, as report.css has them.
PAGES = {"light": "#fbfbf9", "dark": "#14181c"}
LINES = {
    "light": {
        "first": "#0072b2",
        "second": "#c14f00",
        "third": "#007d5a",
        "reference": "#5c6670",
    },
    "dark": {
        "first": "#56b4e9",
        "second": "#f0a13a",
        "third": "#35c69b",
        "reference": "#9ba7b0",
    },
}
_DASHES = {"second": "7 3", "third": "2 3", "reference": "5 5"}
_MEMBER = "#d9480f"  # outlines of committee members on a light page
_BYTE = 255
_BLACK_TEXT_ABOVE = 0.179  # luminance at which black and white text contrast alike
_LINEAR_BELOW = 0.04045  # sRGB transfer function


def step(value: float) -> int:
    """Class number, 0 to NUM_STEPS - 1, of a value between 0 and 1."""
    return round(min(max(value, 0.0), 1.0) * (NUM_STEPS - 1))


def scale_css() -> str:
    """Classes .s0, .s1, ...: ``--c`` the colour of that step, ``--t`` readable text on it."""
    dark = _rules("dark")
    return f"{_rules('light')}@media screen and (prefers-color-scheme:dark){{\n{dark}}}\n"


def scale_hex(number: int, theme: str = "light") -> str:
    """Colour of a step of the scale as '#rrggbb'."""
    return "#{:02x}{:02x}{:02x}".format(*_colour_at(STOPS[theme], number / (NUM_STEPS - 1)))


def line_css() -> str:
    """Classes .first, .second, ...: ``--l`` the colour of that line; and their dashes."""
    light, dark = (
        "".join(f".{look}{{--l:{colour}}}\n" for look, colour in LINES[theme].items())
        for theme in ("light", "dark")
    )
    dashes = "".join(f".line.{look}{{stroke-dasharray:{d}}}\n" for look, d in _DASHES.items())
    return f"{light}{dashes}@media screen and (prefers-color-scheme:dark){{\n{dark}}}\n"


def figure_css() -> str:
    """Style of an SVG file that stands alone: plain colours on white, no variables."""
    rules = [
        "text{font-family:'DejaVu Sans',Arial,Helvetica,sans-serif}",
        ".tick,.axis{fill:#444c54;font-size:12px}",
        ".heading{fill:#1c2329;font-size:14px;font-weight:bold}",
        ".grid{stroke:#dfe3e6;fill:none}",
        ".equal{stroke:#5c6670;stroke-dasharray:5 5;fill:none}",
        ".line{fill:none;stroke-width:2;stroke-linejoin:round}",
        ".line.reference{stroke-width:1.5}",
        ".band{fill-opacity:.18;stroke:none}",
        ".curve{fill:none;stroke-width:1.6;stroke-linejoin:round}",
        f".member{{fill:none;stroke:{_MEMBER};stroke-width:1.5}}",
    ]
    for look, colour in LINES["light"].items():
        dash = f";stroke-dasharray:{_DASHES[look]}" if look in _DASHES else ""
        rules.append(f".line.{look}{{stroke:{colour}{dash}}}")
        rules.append(f".band.{look},.dot.{look}{{fill:{colour}}}")
    rules += [f".curve.s{n}{{stroke:{scale_hex(n)}}}" for n in range(NUM_STEPS)]
    return "\n".join(rules)


def _rules(theme: str) -> str:
    lines = []
    for number in range(NUM_STEPS):
        colour = _colour_at(STOPS[theme], number / (NUM_STEPS - 1))
        background = "#{:02x}{:02x}{:02x}".format(*colour)
        text = "#000" if _luminance(colour) > _BLACK_TEXT_ABOVE else "#fff"
        lines.append(f".s{number}{{--c:{background};--t:{text}}}\n")
    return "".join(lines)


def _colour_at(stops: tuple[str, ...], place: float) -> tuple[int, int, int]:
    """Red, green, blue (0 to 255) at ``place`` (0 to 1) between evenly spaced stops."""
    at = place * (len(stops) - 1)
    left = min(int(at), len(stops) - 2)
    part = at - left
    low, high = stops[left], stops[left + 1]
    red, green, blue = (
        round(int(low[i : i + 2], 16) * (1 - part) + int(high[i : i + 2], 16) * part)
        for i in (1, 3, 5)
    )
    return red, green, blue


def _luminance(colour: tuple[int, int, int]) -> float:
    """WCAG relative luminance, 0 to 1."""
    red, green, blue = (
        c / 12.92 if c <= _LINEAR_BELOW else ((c + 0.055) / 1.055) ** 2.4
        for c in (channel / _BYTE for channel in colour)
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
