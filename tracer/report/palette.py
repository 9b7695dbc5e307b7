"""The one sequential colour scale of the report, for light and for dark pages.

Low to high runs away from the page's background: pale to dark on a light page, dark to pale on
a dark one. Lightness is monotone, so the order survives colour blindness and grey printing.
"""

__all__ = ["NUM_STEPS", "STOPS", "scale_css", "step"]

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
