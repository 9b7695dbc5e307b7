"""SVG to PNG with resvg: one wheel without system libraries (extra ``figures``)."""

from tracer.errors import InputError, MissingLibraryError, first_line

__all__ = ["check_png", "svg_to_png"]

_SCALE = 3  # PNG pixels per SVG unit: a chart of 560 units is 1680 pixels wide
_PROBE = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 40 20">'
    '<text x="2" y="15" font-size="14" font-family="sans-serif">{}</text></svg>'
)


def check_png() -> None:
    """See that PNG files can be made, before any work is done for them.

    Raises:
        MissingLibraryError: resvg is not installed.
        InputError: the machine has no fonts, so that every text would be missing.
    """
    if svg_to_png(_PROBE.format("Layer")) == svg_to_png(_PROBE.format("")):
        raise InputError(
            "no fonts are installed, so pictures would have no text",
            "install one (fonts-dejavu-core), or write SVG only with --svg-only.",
        )


def svg_to_png(svg: str) -> bytes:
    """PNG of a whole SVG document on white, three pixels per unit.

    Raises:
        MissingLibraryError: resvg is not installed.
        InputError: resvg refuses the document.
    """
    try:
        import resvg_py
    except ImportError as error:
        raise MissingLibraryError("resvg-py", "figures") from error
    try:
        return bytes(resvg_py.svg_to_bytes(svg_string=svg, zoom=_SCALE, background="#ffffff"))
    except ValueError as error:
        raise InputError(f"a figure could not be drawn as PNG: {first_line(error)}") from error
