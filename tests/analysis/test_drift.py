"""Limits on two runs: what counts as beyond, what chance explains, what cannot be checked."""

import numpy as np
import polars as pl
import pytest

from tracer.analysis import drift
from tracer.analysis.drift import DriftLimit, compare_runs
from tracer.analysis.measures.catalogue import measure_named
from tracer.analysis.measures.run import MeasureResult, Settings
from tracer.errors import InputError

DRAWS = 19


def requests_of(request_of, seed, *, shifted):
    """30 requests of 4 tokens, k = 1 of 4; in layer 1, where ``shifted``, expert 3 stands for 0."""
    rng = np.random.default_rng(seed)
    found = []
    for number in range(30):
        tokens = []
        for _ in range(4):
            layer_0, layer_1 = (int(rng.choice(4, p=[0.5, 0.3, 0.2, 0])) for _ in range(2))
            if shifted and layer_1 == 0:
                layer_1 = 3
            tokens.append({0: {layer_0: 0.5}, 1: {layer_1: 0.5}})
        found.append(request_of(f"q{number}", ("law", "art")[number % 2], tokens))
    return found


@pytest.fixture
def lakes(make_lake, request_of, tmp_path):
    """Lake of a, of b as a with other choices by chance, and of c with layer 1 shifted."""
    from tests.analysis.conftest import FilesLake

    parts = [
        make_lake(
            requests_of(request_of, seed, shifted=run_id == "c"),
            num_experts=4,
            top_k=1,
            run_id=run_id,
        )
        for seed, run_id in enumerate("abc")
    ]
    files = {t: [p for part in parts for p in part.table_files[t]] for t in parts[0].table_files}
    return FilesLake(parts[0].path, files, [row for part in parts for row in part.run_rows])


def compared(lake, run_id, *limits, alpha=0.05, draws=DRAWS):
    return compare_runs(lake, run_id, "a", limits, alpha=alpha, settings=Settings(draws=draws))


def test_chance_is_no_breach_and_a_shift_is(lakes):
    """By chance alone b moves more than 2 % of the choices; nothing but layer 1 of c breaks it."""
    limit = DriftLimit("usage_drift", "total_variation", None, 0.02)
    alike, moved = (compared(lakes, run_id, limit) for run_id in "bc")
    (check,) = alike.checks
    assert (check.num_rows, check.num_beyond, check.num_breaches) == (2, 2, 0)
    assert alike.breaches == []
    (check,) = moved.breaches
    assert (check.num_rows, check.num_breaches) == (2, 1)
    first, second = check.rows
    assert (first["layer_id"], first["breach"], second["breach"]) == (1, True, False)
    assert first["value"] == pytest.approx(0.5, abs=0.1)
    assert first["low"] <= first["value"] <= first["high"]
    assert first["value"] > first["chance_high"]
    assert first["p_adjusted"] == pytest.approx(1 / (DRAWS + 1))
    assert check.words.startswith("usage_drift.total_variation (at most 0.02): 1 of 2 rows")
    assert (moved.run_id, moved.against) == ("c", "a")

    alone = compared(lakes, "b", limit, alpha=None, draws=0)
    assert alone.checks[0].num_breaches == 2
    assert "p_adjusted" not in alone.checks[0].rows[0]


def test_changes_are_of_the_run_less_the_earlier_one(lakes):
    """Both signs count where a plain number limits; low and high limit one side each."""
    both = DriftLimit("expert_drift", "load_change", None, 0.3, absolute=True)
    up = DriftLimit("expert_drift", "load_change", None, 0.3)
    down = DriftLimit("expert_drift", "load_change", -0.3, None)
    found = compared(lakes, "c", both, up, down)
    experts = [
        {(row["layer_id"], row["expert_id"]) for row in check.rows if row["breach"]}
        for check in found.checks
    ]
    assert experts == [{(1, 0), (1, 3)}, {(1, 3)}, {(1, 0)}]
    assert [check.limit for check in found.checks] == [
        "at most ±0.3",
        "at most 0.3",
        "at least -0.3",
    ]
    gained = next(row for row in found.checks[1].rows if row["breach"])
    assert gained["value"] == pytest.approx(0.5, abs=0.1)


def test_what_cannot_be_checked_is_told(lakes, make_lake, request_of):
    for measure, column, words in (
        ("eci", "eci", "is of one run"),
        ("usage_drift", "nothing", "no column 'nothing'"),
        ("nothing", "x", "no measure"),
    ):
        with pytest.raises(InputError, match=words):
            compared(lakes, "b", DriftLimit(measure, column, None, 1.0), draws=0)
    token = [{0: {0: 0.5}, 1: {1: 0.5}}]
    other = make_lake([request_of("z", "law", token)], num_experts=4, top_k=1, run_id="d")
    for table, paths in other.table_files.items():
        lakes.table_files[table] += paths
    lakes.run_rows += other.run_rows
    limit = DriftLimit("router_saturation", "saturation", 0.9, None)
    with pytest.raises(InputError, match="no value for these two runs"):
        compared(lakes, "d", limit, draws=0)


def two_runs(make_lake, request_of, first, second):
    """Lake of a and b, each of requests of one domain and layer: lists of experts by token."""
    from tests.analysis.conftest import FilesLake

    parts = [
        make_lake(
            [
                request_of(f"q{number}", "law", [{0: {expert: 0.5}} for expert in experts])
                for number, experts in enumerate(requests)
            ],
            num_experts=4,
            top_k=1,
            run_id=run_id,
        )
        for run_id, requests in (("a", first), ("b", second))
    ]
    files = {t: [p for part in parts for p in part.table_files[t]] for t in parts[0].table_files}
    return FilesLake(parts[0].path, files, [row for part in parts for row in part.run_rows])


def test_what_chance_cannot_test_counts_by_its_limit(make_lake, request_of):
    """One request with all of its choices elsewhere: to exchange its runs moves as much."""
    lake = two_runs(make_lake, request_of, [[0, 0, 1]], [[2, 3, 3]])
    (check,) = compared(lake, "b", DriftLimit("usage_drift", "total_variation", None, 0.1)).checks
    assert check.rows[0]["value"] == 1.0
    assert check.rows[0]["p_adjusted"] is None
    assert check.num_breaches == 1


def test_a_value_nearer_than_chance_is_no_breach():
    """Fewer members stay than the limit wants, but more than in two samples of one run."""
    frame = pl.DataFrame(
        {
            "layer_id": [0, 1, 2],
            "jaccard": [0.4, 0.4, 0.6],
            "jaccard_chance": [0.2, 0.9, 0.9],
            "jaccard_p_adjusted": [0.01, 0.01, 0.01],
        }
    )
    found = MeasureResult(measure_named("committee_drift"), frame, (), (30, 30))
    low = DriftLimit("committee_drift", "jaccard", 0.5, None)
    check = drift._check(found, low, 0.05)
    assert (check.num_beyond, check.num_breaches) == (2, 1)
    assert check.rows[0]["layer_id"] == 1
    both = DriftLimit("committee_drift", "jaccard", None, 0.3, absolute=True)
    check = drift._check(found, both, 0.05)
    assert [row["layer_id"] for row in check.rows if row["breach"]] == [0]


def test_a_total_change_of_routing_breaks_a_limit_on_saturation(make_lake, request_of):
    """Nothing stays, which is just what tokens that meet at random have in common, too."""
    rng = np.random.default_rng(0)
    first = [[int(expert) for expert in rng.integers(2, size=4)] for _ in range(12)]
    second = [[expert + 2 for expert in experts] for experts in first]
    lake = two_runs(make_lake, request_of, first, second)
    (check,) = compared(lake, "b", DriftLimit("router_saturation", "saturation", 0.9, None)).checks
    assert check.rows[0]["value"] == 0.0
    assert check.num_breaches == 1
    assert compared(
        two_runs(make_lake, request_of, first, [*first[:6], *second[6:]]),
        "b",
        DriftLimit("router_saturation", "saturation", 0.9, None),
    ).breaches


def test_few_requests_cannot_be_held_to_a_small_alpha(lakes):
    """Six requests that exchange their runs can be as unlikely as 2^-5, and no less."""
    limit = DriftLimit("usage_drift", "total_variation", None, 0.02)
    settings = Settings(draws=DRAWS, requests=6)

    def held(alpha):
        return compare_runs(lakes, "c", "a", [limit], alpha=alpha, settings=settings)

    assert held(2**-5).checks
    assert held(None).breaches
    with pytest.raises(InputError) as error:
        held(2**-5.5)
    assert str(error.value).startswith("6 requests cannot show")
    assert (
        error.value.hint
        == "capture 7 or more, or set `alpha: null`, which judges by the limits alone."
    )
