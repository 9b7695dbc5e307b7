"""committee_drift and eci_drift: by hand, beside `committee`, beside NumPy."""

import numpy as np
import pytest

from tests.analysis.measures.conftest import LAYERS, NUM_EXPERTS, TOP_K, arrays_of, usage_of


def test_by_hand(make_lake, request_of, together, take):
    """Two domains, k = 2, a token each.

    r1: both domains list 0 and 1, and 0 beats 1 in rank: the committee is {0}. r2: law lists 2, 0
    and art 0, 2: ranks (1, 2) and (2, 1), so none beats the other: {0, 2}.
    """
    one = {"law": {0: 0.5, 1: 0.25}, "art": {0: 0.5, 1: 0.25}}
    two = {"law": {2: 0.5, 0: 0.25}, "art": {0: 0.5, 2: 0.25}}
    runs = [
        make_lake(
            [request_of(domain, domain, [{3: token}]) for domain, token in tokens.items()],
            num_experts=4,
            run_id=run_id,
        )
        for run_id, tokens in (("r1", one), ("r2", two))
    ]
    lake = together(*runs)
    found = take(lake, "committee_drift", other_run_id="r2")
    assert found.rows() == [(3, 1, 2, 1, 0, 1, 0.5)]
    assert take(lake, "committee_drift", other_run_id="r1").rows() == [(3, 1, 1, 1, 0, 0, 1.0)]
    assert take(lake, "eci_drift", other_run_id="r2").rows() == [
        (3, 0, 0.5, 0.375, -0.125),
        (3, 1, 0.25, 0.0, -0.25),
        (3, 2, 0.0, 0.375, 0.375),
        (3, 3, 0.0, 0.0, 0.0),
    ]


@pytest.mark.parametrize("options", [{}, {"min_presence": 0.4, "rank_cutoff": 3}])
@pytest.mark.parametrize("tokens", ["all", "generated"])
def test_committees_and_contributions_are_those_of_each_run(pair, take, tokens, options):
    lake, *_ = pair
    whole = take(lake, "committee_drift", other_run_id="r2", tokens=tokens, **options)
    drift = take(lake, "eci_drift", other_run_id="r2", tokens=tokens)
    one, two = (
        take(lake, "committee", run_id=run_id, tokens=tokens, **options) for run_id in ("r1", "r2")
    )
    for row in whole.iter_rows(named=True):
        here, there = (
            set(c.filter(layer_id=row["layer_id"], member=True)["expert_id"]) for c in (one, two)
        )
        assert (row["size"], row["other_size"]) == (len(here), len(there))
        assert (row["kept"], row["gone"], row["come"]) == (
            len(here & there),
            len(here - there),
            len(there - here),
        )
        assert row["jaccard"] == pytest.approx(len(here & there) / len(here | there))
    np.testing.assert_allclose(drift["eci"], one["eci_mean"], atol=1e-12)
    np.testing.assert_allclose(drift["other_eci"], two["eci_mean"], atol=1e-12)


def test_contributions_beside_numpy(pair, take):
    lake, requests, others = pair
    found = take(lake, "eci_drift", other_run_id="r2")
    for layer in LAYERS:
        means = []
        for written in (requests, others):
            usage = usage_of(arrays_of(written))
            by_domain = [
                usage.weights[layer][usage.domain == name].sum(axis=0)
                / (usage.counts[layer][usage.domain == name].sum() / TOP_K)
                for name in sorted(set(usage.domain))
            ]
            means.append(np.mean(by_domain, axis=0))
        rows = found.filter(layer_id=layer)
        assert rows["expert_id"].to_list() == list(range(NUM_EXPERTS))
        np.testing.assert_allclose(rows["eci_change"], means[1] - means[0], atol=1e-6)


@pytest.mark.parametrize("made", ["planted"], indirect=True)
def test_a_run_does_not_drift_from_itself_and_a_moved_layer_does(
    made, make_lake, request_of, together, take
):
    """In layer 2 of r3, 6 stands for 0 and 0 for 6: the committee loses expert 0."""
    lake, requests = made
    alike = together(lake, make_lake(requests, run_id="r2"))
    found = take(alike, "committee_drift", other_run_id="r2", draws=19)
    assert found["jaccard"].to_list() == [1, 1, 1]
    assert (found["jaccard_p_adjusted"] > 0.05).all()
    assert take(alike, "eci_drift", other_run_id="r2")["eci_change"].to_list() == [0.0] * 24

    swap = {0: 6, 6: 0}

    def renamed(tokens):
        return [
            {k: {swap.get(e, e) if k == 2 else e: w for e, w in v.items()} for k, v in t.items()}
            for t in tokens
        ]

    moved = [
        request_of(r.request_id, r.domain, renamed(r.prompt), renamed(r.generated))
        for r in requests
    ]
    far = together(lake, make_lake(moved, run_id="r3"))
    found = take(far, "committee_drift", other_run_id="r3", draws=19)
    assert found["jaccard"][0] == found["jaccard"][2] == 1
    assert found["jaccard"][1] == 0 < found["jaccard_chance_low"][1]
    assert (found["jaccard_p_adjusted"] <= 0.05).to_list() == [False, True, False]
    change = take(far, "eci_drift", other_run_id="r3", draws=39).filter(layer_id=2)
    loser, winner = (change.filter(expert_id=e).row(0, named=True) for e in (0, 6))
    assert loser["eci_change"] == pytest.approx(-winner["eci_change"], abs=0.02)
    assert loser["eci_change"] < loser["eci_change_chance_low"] < 0
    assert max(loser["eci_change_p_adjusted"], winner["eci_change_p_adjusted"]) <= 0.05
