"""Charts: the numbers they show, what is drawn of them, the words and the table beside them."""

import dataclasses
import json
import math
import re
import xml.etree.ElementTree as ET
from types import SimpleNamespace

import pytest

from tracer.records import Audit
from tracer.report.chart import Chart, Dot, Series, chart_table, chart_words
from tracer.report.chart_svg import chart_svg
from tracer.report.contributions import contribution_table
from tracer.report.depth import depth_charts, truncated_ginis
from tracer.report.grid_svg import grid_svg
from tracer.report.html import render_report
from tracer.report.palette import LINES, NUM_STEPS, PAGES, line_css, scale_hex

HOSTILE = "<script>alert(1)</script>"


@dataclasses.dataclass(frozen=True)
class DrawnAudit(Audit):
    """An audit whose draws are whatever a test gives."""

    chance: object = None


def drawn(audit, *statistics):
    """The audit with the same statistics beside chance in layers 1 and 2."""
    layers = [
        SimpleNamespace(
            layer_id=layer_id,
            statistics=statistics,
            membership=((0, 0.75),),
            specificity=(
                SimpleNamespace(
                    domain=HOSTILE,
                    num_requests=20,
                    specificity=statistic("task_specificity", "labels", 0.5),
                ),
            ),
            agreement="agrees",
            differences="differs" if layer_id == 1 else "does not differ",
        )
        for layer_id in (1, 2)
    ]
    chance = SimpleNamespace(
        draws=1999, seed=7, level=0.95, layers=layers, agreement="agrees", differences="differs"
    )
    fields = {f.name: getattr(audit, f.name) for f in dataclasses.fields(Audit)}
    return DrawnAudit(**fields | {"chance": chance})


def statistic(name, null, estimate):
    return SimpleNamespace(
        statistic=name,
        null=null,
        estimate=estimate,
        low=estimate - 0.125,
        high=estimate + 0.125,
        chance=0.25,
        chance_low=0.125,
        chance_high=math.nan,
        p=0.01,
        p_adjusted=0.02,
    )


def charts_of(audit):
    return {chart.name: chart for chart in depth_charts(audit, contribution_table(audit))}


def lines(chart):
    return {series.name: series.values for series in chart.series}


def chart(values, **changes):
    layer_ids = tuple(range(len(values)))
    made = Chart("c", "Title", "unit", layer_ids, (Series("line", tuple(values)),))
    return dataclasses.replace(made, **changes)


def test_every_number_of_the_audit_has_its_line_and_its_reference(audit):
    """Lift: 0.625 / 0.5 and 0.3333 / 0.5; layer 2 has an infinite density, so a gap."""
    charts = charts_of(audit)

    assert lines(charts["coverage"]) == {
        "equal weights (reference, not chance)": (0.5, 0.5, 0.5),
        "coverage": (0.625, 0.625, 0.3333),
    }
    assert lines(charts["coverage-lift"])["coverage lift"] == (1.25, 1.25, 0.6666)
    assert lines(charts["influence-density"]) == {
        "equal weights (reference, not chance)": (3.0, None, 3.0),
        "influence density": (5.0, None, 5.0),
    }
    assert lines(charts["jaccard-depth"]) == {
        "two random sets of 2 of 8 (expected)": (0.1905,) * 3,
        "mean over pairs": (0.5556,) * 3,
    }
    assert lines(charts["committee-size"]) == {"members": (1, 2, 1), "candidates": (2, 2, 2)}
    assert lines(charts["rank-variance"]) == {"rank variance": (0.25, 0.25, 1.75)}
    assert [(dot.layer_id, dot.value) for dot in charts["member-ranks"].dots] == [
        (1, 1.5),
        (2, 1.5),
        (2, 1.5),
        (4, 1.5),
    ]
    assert "domain-distance" not in charts


def test_gini_is_told_for_all_chosen_and_truncated_to_the_lists(audit):
    """Listed sums 1.25, 0.75, 0.25 and five zeros: (3 * .25 + 5 * .75 + 7 * 1.25) / (8 * 2.25)."""
    expected = pytest.approx([13.25 / 18] * 3)

    assert truncated_ginis(audit, contribution_table(audit)) == expected
    found = lines(charts_of(audit)["gini"])
    assert found["all chosen experts"] == (0.8125, 0.8125, 0.7512)
    assert found["truncated to the lists"] == expected
    assert found["1 \N{MINUS SIGN} k/E: k equal experts, zeros elsewhere"] == (0.75,) * 3
    reference = lines(charts_of(dataclasses.replace(audit, mode="reference"))["gini"])
    assert "all chosen experts" not in reference


def test_truncated_gini_is_the_reference_modes_own(made_up_audit):
    """Reference mode counts listed experts only, so its Gini is the truncated one."""
    audit = made_up_audit(3, 32, 4, k=4, mode="reference")

    found = truncated_ginis(audit, contribution_table(audit))

    assert found == pytest.approx([layer.gini for layer in audit.layers])


def test_draws_give_an_interval_and_a_band_of_chance(audit):
    """Layer 4 has no draws; what is not defined leaves a gap in the band."""
    found = charts_of(drawn(audit, statistic("coverage", "experts", 0.625)))["coverage"]

    by_name = {series.name: series for series in found.series}
    measured = by_name["coverage"]
    assert measured.values == (0.625, 0.625, 0.3333)
    assert (measured.low, measured.high) == ((0.5, 0.5, None), (0.75, 0.75, None))
    assert measured.band == "95 % interval"
    chance = by_name["by chance (expert ids exchanged in each domain)"]
    assert chance.values == (0.25, 0.25, None)
    assert (chance.low, chance.high) == ((0.125, 0.125, None), (None, None, None))
    assert "equal weights (reference, not chance)" in by_name


def test_distance_between_domains_is_there_with_draws_alone(audit):
    charts = charts_of(drawn(audit, statistic("eci_distance", "labels", 0.5)))

    assert lines(charts["domain-distance"]) == {
        "by chance (domains exchanged over requests)": (0.25, 0.25, None),
        "measured": (0.5, 0.5, None),
    }
    assert "task-specificity" not in charts


def test_the_page_tells_verdicts_intervals_and_chance(audit):
    html = render_report(
        [drawn(audit, statistic("jaccard_mean", "experts", 0.5))], run={}, tracer_version="1"
    )

    text = re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", html))
    assert "Agreement across domains agrees (2 of 2 layers)" in text
    assert "Differences between domains differs (1 of 2 layers)" in text
    assert "1,999 draws of each kind, seed 7" in text
    assert "0.500 0.375 to 0.625 0.125 to n/a 0.020 agrees n/a n/a n/a differs" in text
    assert "In draws member with requests drawn anew" in text
    assert '<td data-v="0.75">75.0' in html
    assert "not computed for this audit" not in html
    assert HOSTILE not in html
    tables = json.loads(re.search(r'id="data">(.*?)</script>', html)[1])["tables"]
    first = dict(zip(tables["chance"]["columns"], tables["chance"]["rows"][0], strict=True))
    assert first == {
        "layer_id": 1,
        "statistic": "jaccard_mean",
        "null": "experts",
        "estimate": 0.5,
        "low": 0.375,
        "high": 0.625,
        "chance": 0.25,
        "chance_low": 0.125,
        "chance_high": None,
        "p": 0.01,
        "p_adjusted": 0.02,
    }
    assert tables["specificity"]["rows"][0][:4] == [1, HOSTILE, 20, 0.5]


def test_a_chart_says_the_same_in_its_table(audit):
    banded = dataclasses.replace(
        chart([0.5, None]).series[0], low=(0.25, None), high=(0.75, None), band="b"
    )

    assert chart_table(chart([0.5, None], series=(banded,))) == {
        "columns": ["layer", "line", "line, b, low", "line, b, high"],
        "rows": [[0, 0.5, 0.25, 0.75], [1, None, None, None]],
    }


def test_a_chart_has_words():
    assert chart_words(chart([0.5, 0.25, None, 1.0], share=True)) == (
        "Title over 4 layers: line from 25.0 % (layer 1) to 100.0 % (layer 3), median 50.0 %."
    )
    assert chart_words(chart([2, 2], digits=0)) == "Title over 2 layers: line 2 in every layer."
    assert chart_words(chart([None])) == "Title over 1 layer: line not defined."


def test_values_stand_where_the_axis_says():
    """0 to 1 over 220 units below 32: 0.25 stands at 32 + 220 * 0.75."""
    svg = chart_svg(chart([0.25, 1.0], floor=0, ceiling=1))

    assert 'd="M62.0 197.0L540.0 32.0"' in svg
    assert re.findall(r'text-anchor="end">([^<]*)<', svg) == [
        "0.0",
        "0.2",
        "0.4",
        "0.6",
        "0.8",
        "1.0",
    ]


def test_gaps_break_lines_and_bands():
    series = Series("line", (1.0, None, 2.0, 3.0), "first", (0, None, 1, 2), (2, None, 3, 4), "b")
    svg = chart_svg(chart([1.0, None, 2.0, 3.0], series=(series,)))

    [path] = re.findall(r'class="line first" d="(M[^h"]*)"', svg)
    assert path.count("M") == 2
    assert svg.count("<polygon") == 2


def test_ranks_hang_from_one():
    svg = chart_svg(
        chart([], series=(), dots=(Dot(0, 1.5, "w"),), floor=1, ceiling=9, downward=True)
    )

    assert re.findall(r'text-anchor="end">([^<]*)<', svg) == ["1", "3", "5", "7", "9"]
    assert 'cy="27.8"' in svg  # 14 + 220 * 0.5 / 8


@pytest.mark.parametrize("values", [[], [None], [0.0], [5.0] * 3, [1e-9, 2e-9], [1e12, -1e12]])
def test_odd_values_still_make_a_document(values):
    ET.fromstring(chart_svg(chart(values), heading=True))  # noqa: S314 - our own


def test_names_are_text_in_every_drawing():
    series = (Series(HOSTILE, (1.0,)),)
    drawings = [
        chart_svg(chart([1.0], title=HOSTILE, series=series, unit=HOSTILE), heading=True),
        chart_svg(chart([], dots=(Dot(0, 1.0, HOSTILE),))),
        grid_svg(
            [[1.0]],
            rows=[HOSTILE],
            columns=[HOSTILE],
            scale=[HOSTILE],
            heading=HOSTILE,
            axes=(HOSTILE, HOSTILE),
        ),
    ]
    for svg in drawings:
        assert "<script" not in svg
        ET.fromstring(svg)  # noqa: S314 - our own


def test_cells_of_one_colour_are_one_path():
    """Steps 0 and 20; one cell is left out, one is outlined."""
    svg = grid_svg(
        [[0.0, 1.0, None], [1.0, 1.0, 0.0]],
        rows=["0", "1"],
        columns=["0", "1", "2"],
        scale=["0", "1"],
        heading="h",
        axes=("a", "b"),
        members=[(1, 2)],
    )

    paths = dict(re.findall(r'<path fill="(#\w+)" stroke="#fff"[^>]* d="([^"]*)"', svg))
    assert {colour: path.count("M") for colour, path in paths.items()} == {
        scale_hex(0): 2,
        scale_hex(NUM_STEPS - 1): 3,
    }
    assert svg.count('class="member"') == 1


def channels(colour):
    """Linear light of '#rrggbb'."""
    srgb = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    return [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in srgb]


def luminance(colour):
    return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), channels(colour), strict=True))


def contrast(one, other):
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_the_page_has_the_colours_that_lines_are_checked_against(repository):
    css = (repository / "tracer" / "report" / "page" / "report.css").read_text(encoding="utf-8")

    assert re.findall(r"--page: (#\w+);", css) == [PAGES["light"], PAGES["dark"]]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_lines_stand_out_from_the_page(theme):
    """WCAG asks 3 : 1 of graphics."""
    assert {
        look: round(contrast(c, PAGES[theme]), 1)
        for look, c in LINES[theme].items()
        if contrast(c, PAGES[theme]) < 3
    } == {}


# Machado, Oliveira and Fernandes (2009), severity 1: protan, deutan, tritan; linear light.
BLINDNESS = {
    "none": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "protan": (
        (0.152286, 1.052583, -0.204868),
        (0.114503, 0.786281, 0.099216),
        (-0.003882, -0.048116, 1.051998),
    ),
    "deutan": (
        (0.367322, 0.860646, -0.227968),
        (0.280085, 0.672501, 0.047413),
        (-0.011820, 0.042940, 0.968881),
    ),
    "tritan": (
        (1.255528, -0.076749, -0.178779),
        (-0.078411, 0.930809, 0.147602),
        (0.004733, 0.691367, 0.303900),
    ),
}


def lab(colour, matrix):
    """CIE Lab (D65) of a colour as somebody sees it."""
    light = channels(colour)
    red, green, blue = (
        min(max(sum(m * c for m, c in zip(row, light, strict=True)), 0), 1) for row in matrix
    )
    x = (0.4124 * red + 0.3576 * green + 0.1805 * blue) / 0.9505
    y = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    z = (0.0193 * red + 0.1192 * green + 0.9505 * blue) / 1.089
    f = [t ** (1 / 3) if t > 0.008856 else 7.787 * t + 16 / 116 for t in (x, y, z)]
    return 116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("blindness", BLINDNESS)
def test_lines_stay_apart_without_colour_vision(theme, blindness):
    """A difference of 10 in Lab is plain beside each other; dash and marker differ as well."""
    seen = {look: lab(c, BLINDNESS[blindness]) for look, c in LINES[theme].items()}
    names = ["first", "second", "third"]
    near = {
        (a, b): round(math.dist(seen[a], seen[b]), 1)
        for i, a in enumerate(names)
        for b in names[:i]
        if math.dist(seen[a], seen[b]) < 10
    }
    assert near == {}
    css = line_css()
    dashes = {
        re.search(rf"\.line\.{look}{{stroke-dasharray:([^}}]*)", css)[1]
        for look in ("second", "third", "reference")
    }
    assert len(dashes) == 3


def test_the_scale_grows_darker_at_every_step():
    lights = [luminance(scale_hex(number)) for number in range(NUM_STEPS)]
    assert lights == sorted(lights, reverse=True)
    dark = [luminance(scale_hex(number, "dark")) for number in range(NUM_STEPS)]
    assert dark == sorted(dark)
