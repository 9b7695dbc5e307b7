"""Limits on two runs: what counts as beyond, what chance explains, what cannot be checked."""

import numpy as np
import pytest

from tracer.analysis.drift import DriftLimit, compare_runs
from tracer.analysis.measures.run import Settings
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
