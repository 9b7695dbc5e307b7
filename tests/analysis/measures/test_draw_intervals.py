"""Intervals of measures on lakes: they hold values, keep to bounds, say how they are made."""

import numpy as np
import polars as pl
import pytest

from tests.analysis.measures.conftest import SIZES
from tracer.analysis.bootstrap import percentile_interval
from tracer.analysis.measures import draws
from tracer.analysis.measures.run import Settings, run_measure
from tracer.analysis.measures.widths import row_widening

DRAWS = 19


@pytest.fixture
def random(made, request):
    """The lake of random routing: any information about domains is chance."""
    return made[0]


random_only = pytest.mark.parametrize("made", ["random"], indirect=True)


def taken(lake, name, **settings):
    return run_measure(lake, name, settings=Settings(draws=DRAWS, **settings))


@random_only
def test_biased_measures_lie_in_their_intervals(random, monkeypatch):
    """Percentiles of the very draws lie above mutual information in a layer of three."""
    seen = {}
    make = draws.interval_columns

    def kept(name, observed, drawn, level, **options):
        seen[name] = percentile_interval(drawn, level)
        return make(name, observed, drawn, level, **options)

    monkeypatch.setattr(draws, "interval_columns", kept)
    result = taken(random, "domain_mutual_information")
    frame = result.frame
    above = seen["mutual_information"][0] > frame["mutual_information"].to_numpy()
    assert above.tolist() == [True, False, False]
    for name in ("mutual_information", "normalised_information"):
        low, value, high = (frame[f"{name}{end}"] for end in ("_low", "", "_high"))
        assert ((low >= 0) & (low <= value) & (value <= high)).all()
    assert result.notes[-1] == (
        f"intervals are from {DRAWS} draws of requests (seed 0), their bias taken off, widened for"
        " few requests."
    )


@random_only
def test_what_moves_in_jumps_keeps_percentiles(random):
    """Of 19 draws the middle 8 of 9 end at a draw, so at a Jaccard index of lists of 2."""
    result = taken(random, "domain_overlap", level=8 / 9)
    ends = result.frame.select("jaccard_low", "jaccard_high").to_numpy()
    assert set(np.round(ends, 6).ravel()) <= set(np.round([0, 1 / 6, 1 / 3, 2 / 3, 1], 6))
    assert result.notes[-1].endswith("(seed 0), plain percentiles.")
    some = taken(random, "load_balance").notes[-1]
    assert some.endswith("widened for few requests; of never_chosen plain percentiles.")


@random_only
def test_a_seed_gives_the_same_intervals(random):
    first, second, other = (taken(random, "eci", seed=seed).frame for seed in (3, 3, 4))
    assert first.equals(second)
    assert not first.equals(other)


@random_only
def test_rows_that_chance_cannot_change_are_told(random):
    """Set sizes are the same whatever the domains are called."""
    result = taken(random, "top_p_overlap")
    assert result.frame["set_size_p"].is_nan().all()
    assert result.frame["set_size_chance"].to_list() == pytest.approx(result.frame["set_size"])
    assert result.notes[-1] == (
        "3 of 3 values of set_size are the same in every draw of chance, so they cannot be tested"
        " and have no probability."
    )


def test_a_domain_of_one_request_has_no_interval(make_lake, request_of):
    """Nothing can be drawn in its place; law, which has two, has one."""
    requests = [
        request_of(name, domain, [{0: {0: 0.5, expert: 0.3}}] * 2)
        for name, domain, expert in (("a", "law", 1), ("b", "law", 2), ("c", "math", 3))
    ]
    result = taken(make_lake(requests), "domain_specialisation")
    gone = result.frame.filter(pl.col("specialisation_low").is_nan())
    assert gone["domain"].unique().to_list() == ["math"]
    assert result.notes[1] == (
        f"{gone.height} of {result.frame.height} rows have no interval: each of their domains has"
        " one request, or no draw has the row."
    )


def test_rows_are_as_wide_as_their_domains_are_small():
    """9, 5 and 2 requests: 8, 4 and 1 free; 12 of both law and math; 13 of all."""
    requests = pl.DataFrame({"domain": [d for d, n in SIZES.items() for _ in range(n)]})
    rows = pl.DataFrame(
        {
            "domain": ["law", "math", "poems", "law"],
            "other_domain": ["law", "math", "poems", "math"],
        }
    )
    found = row_widening(rows, ("domain", "other_domain"), requests, 0.95)
    student = np.array([2.306, 2.776, 12.706, 2.179])
    size = np.sqrt(np.array([9 / 8, 5 / 4, 2, 14 / 12]))
    np.testing.assert_allclose(found, size * student / 1.95996, rtol=1e-3)
    every = row_widening(rows, ("layer_id",), requests, 0.95)
    np.testing.assert_allclose(every, np.sqrt(16 / 13) * 2.160 / 1.95996, rtol=1e-3)
    alone = pl.DataFrame({"domain": ["law"]})
    assert np.isnan(row_widening(alone, ("domain",), alone, 0.95)).all()
