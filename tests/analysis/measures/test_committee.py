"""committee, committee_coverage and domain_overlap: by hand, beside NumPy, and beside the audit."""

import itertools
import math

import numpy as np
import polars as pl
import pytest

from tests.analysis.measures.conftest import LAYERS, NUM_EXPERTS, TOP_K, arrays_of
from tracer.analysis.audit import audit

SETTINGS = [(0.8, 0), (0.5, 0), (1.0, 3), (0.3, 1), (0.6, NUM_EXPERTS)]


def lists_of(choices, layer, depth):
    """{domain: (experts by descending ECI, ECI by expert)}; equal ones by id, unchosen left out."""
    found = {}
    for domain in sorted(set(choices.domain)):
        mine = choices.domain == domain
        weights = np.zeros((mine.sum(), NUM_EXPERTS))
        np.put_along_axis(weights, choices.ids[layer][mine], choices.weights[layer][mine], axis=1)
        eci = weights.sum(axis=0) / mine.sum()
        order = [e for e in np.lexsort((np.arange(NUM_EXPERTS), -eci)) if eci[e] > 0]
        found[domain] = ([int(e) for e in order[:depth]], eci)
    return found


def committee_of(lists, depth, min_presence):
    """(presence, rank mean, rank variance by expert; candidates; members; fallback)."""
    ranks = np.array(
        [
            [order.index(e) + 1 if e in order else depth + 1 for e in range(NUM_EXPERTS)]
            for order, _ in lists.values()
        ]
    )
    listed = (ranks <= depth).sum(axis=0)
    needed = max(1, math.ceil(len(lists) * min_presence - 1e-9))
    fallback = listed.max() < needed
    candidates = [e for e in range(NUM_EXPERTS) if listed[e] >= min(needed, listed.max())]
    mean, var = ranks.mean(axis=0), ranks.var(axis=0)
    members = [
        e
        for e in candidates
        if not any(
            mean[o] <= mean[e] + 1e-12
            and var[o] <= var[e] + 1e-12
            and (mean[o] < mean[e] - 1e-12 or var[o] < var[e] - 1e-12)
            for o in candidates
        )
    ]
    return listed / len(lists), mean, var, candidates, members, fallback


def test_committee_by_hand(make_lake, request_of, take):
    """Of three domains with lists of two: (0, 1), (0, 2), (1, 0); n = 3 needs 3 of them at 0.8.

    Expert 0 has ranks 1, 1, 2: mean 4/3, variance 2/9. Expert 1 has 2, 3, 1 and is listed twice,
    2 has 3, 2, 3 and is listed once, 3 never: rank 3 everywhere.
    Expert 0 is listed with 0.75, 0.5 and 0.25 of 1, 0.75 and 1: coverage is 1.5 of 2.75.
    """
    tokens = {"a": {0: 0.75, 1: 0.25}, "b": {0: 0.5, 2: 0.25}, "c": {1: 0.75, 0: 0.25}}
    lake = make_lake(
        [request_of(name, name, [{3: token}]) for name, token in tokens.items()], num_experts=4
    )
    found = take(lake, "committee")
    third = pytest.approx(1 / 3)
    assert found.rows() == [
        (3, 0, 1.0, pytest.approx(4 / 3), pytest.approx(2 / 9), 0.5, 0.5, True, True),
        (3, 1, 2 * third.expected, 2.0, pytest.approx(2 / 3), third, third, False, False),
        (3, 2, third, pytest.approx(8 / 3), pytest.approx(2 / 9), 0.25 / 3, 0.25 / 3, False, False),
        (3, 3, 0.0, 3.0, 0.0, 0.0, 0.0, False, False),
    ]
    half = take(lake, "committee", min_presence=0.5)
    assert half.filter("candidate")["expert_id"].to_list() == [0, 1]
    assert half.filter("member")["expert_id"].to_list() == [0]
    coverage = 1.5 / 2.75
    assert take(lake, "committee_coverage").rows() == [
        (
            3,
            1,
            False,
            1,
            pytest.approx(coverage),
            0.5,
            pytest.approx(coverage / 0.5),
            pytest.approx(coverage / ((1 - coverage) / 3)),
            pytest.approx((1 - coverage) / 3 / coverage),
            3.0,
        )
    ]


def test_an_empty_presence_falls_back_to_the_greatest(make_lake, request_of, take):
    """Lists (0, 1), (1, 2), (2, 0): each expert in two of three, none in all; all three stand.

    Ranks of 0: 1, 3, 2; of 1: 2, 1, 3; of 2: 3, 2, 1: the same points, so none beats another.
    They take all: nothing is left for the others; density is infinite, its inverse 0.
    """
    tokens = {"a": {0: 0.75, 1: 0.25}, "b": {1: 0.75, 2: 0.25}, "c": {2: 0.75, 0: 0.25}}
    lake = make_lake(
        [request_of(name, name, [{3: token}]) for name, token in tokens.items()], num_experts=4
    )
    assert take(lake, "committee").filter("member")["expert_id"].to_list() == [0, 1, 2]
    (row,) = take(lake, "committee_coverage").rows()
    assert row == (3, 3, True, 3, 1.0, 1.5, pytest.approx(2 / 3), None, 0, None)


def test_overlap_by_hand(make_lake, request_of, take):
    """Lists (0, 1) and (0, 2) share one of three; two random pairs of four experts 7/18 on average.

    They share 1 of 3 with probability 4/6 and both with 1/6: 4/18 + 1/6.
    """
    tokens = {"a": {0: 0.75, 1: 0.25}, "b": {0: 0.5, 2: 0.25}}
    lake = make_lake(
        [request_of(name, name, [{3: token}]) for name, token in tokens.items()], num_experts=4
    )
    assert take(lake, "domain_overlap").rows() == [
        (3, "a", "b", 1, pytest.approx(1 / 3), pytest.approx(7 / 18, rel=1e-12))
    ]


@pytest.mark.parametrize(("min_presence", "rank_cutoff"), SETTINGS)
@pytest.mark.parametrize("tokens", ["all", "generated"])
def test_beside_numpy(made, take, tokens, min_presence, rank_cutoff):
    lake, requests = made
    choices = arrays_of(requests, tokens)
    depth = rank_cutoff or TOP_K
    options = {"tokens": tokens, "rank_cutoff": rank_cutoff}
    found = take(lake, "committee", min_presence=min_presence, **options)
    layers = take(lake, "committee_coverage", min_presence=min_presence, **options)
    overlaps = take(lake, "domain_overlap", **options)
    for layer in LAYERS:
        lists = lists_of(choices, layer, depth)
        presence, mean, var, candidates, members, fallback = committee_of(
            lists, depth, min_presence
        )
        rows = found.filter(layer_id=layer)
        assert rows["expert_id"].to_list() == list(range(NUM_EXPERTS))
        for column, expected in {"presence": presence, "rank_mean": mean, "rank_var": var}.items():
            np.testing.assert_allclose(rows[column], expected, rtol=0, atol=1e-12)
        np.testing.assert_allclose(
            rows["eci_mean"], np.mean([eci for _, eci in lists.values()], axis=0), atol=1e-12
        )
        assert rows.filter("candidate")["expert_id"].to_list() == candidates
        assert rows.filter("member")["expert_id"].to_list() == members
        (row,) = layers.filter(layer_id=layer).rows(named=True)
        assert (row["num_candidates"], row["size"]) == (len(candidates), len(members))
        assert row["fallback"] == fallback
        taken = sum(eci[e] for order, eci in lists.values() for e in order if e in members)
        coverage = taken / sum(eci[e] for order, eci in lists.values() for e in order)
        assert row["coverage"] == pytest.approx(coverage, abs=1e-12)
        assert row["coverage_lift"] == pytest.approx(coverage / (len(members) / depth))
        for (a, (one, _)), (b, (other, _)) in itertools.combinations(lists.items(), 2):
            (pair,) = overlaps.filter(layer_id=layer, domain_a=a, domain_b=b).rows(named=True)
            shared = len({*one} & {*other})
            assert pair["num_shared"] == shared
            assert pair["jaccard"] == pytest.approx(shared / len({*one, *other}), abs=1e-12)
            assert pair["jaccard_closed_form"] == pytest.approx(
                mean_overlap(len(one), len(other)), abs=1e-12
            )
        assert overlaps.filter(layer_id=layer).height == len(lists) * (len(lists) - 1) // 2


def mean_overlap(size_a, size_b):
    """Mean Jaccard index of a fixed set and every set of another size, one by one."""
    fixed = set(range(size_a))
    every = [set(some) for some in itertools.combinations(range(NUM_EXPERTS), size_b)]
    return sum(len(fixed & some) / len(fixed | some) for some in every) / len(every)


@pytest.fixture
def tied(make_lake, request_of):
    """Weights of quarters only: within every domain many experts have the same sums."""
    rng = np.random.default_rng(8)
    requests = [
        request_of(
            f"{domain}-{n}",
            domain,
            [
                {
                    layer: dict.fromkeys(rng.permutation(NUM_EXPERTS)[:TOP_K].tolist(), 0.25)
                    for layer in LAYERS
                }
                for _ in range(4)
            ],
        )
        for domain in "abcdefghi"
        for n in range(2)
    ]
    return make_lake(requests, num_experts=NUM_EXPERTS, top_k=TOP_K)


@pytest.mark.parametrize(("min_presence", "rank_cutoff"), SETTINGS)
def test_beside_the_audit(made, take, min_presence, rank_cutoff):
    same_as_audit(made[0], take, min_presence, rank_cutoff)


@pytest.mark.parametrize(("min_presence", "rank_cutoff"), SETTINGS)
def test_beside_the_audit_where_experts_tie(tied, take, min_presence, rank_cutoff):
    same_as_audit(tied, take, min_presence, rank_cutoff)


def same_as_audit(lake, take, min_presence, rank_cutoff):
    """Committees are equal, other numbers to the last bits."""
    options = {"tokens": "prompt", "rank_cutoff": rank_cutoff}
    expected = audit(
        lake, tokens="prompt", min_presence=min_presence, rank_cutoff=rank_cutoff or None
    )
    found = take(lake, "committee", min_presence=min_presence, **options)
    layers = take(lake, "committee_coverage", min_presence=min_presence, **options)
    assert layers["layer_id"].to_list() == [layer.layer_id for layer in expected.layers]
    for layer, row in zip(expected.layers, layers.rows(named=True), strict=True):
        members = found.filter(pl.col("member"), layer_id=layer.layer_id)
        assert members.sort("rank_mean", "expert_id")["expert_id"].to_list() == [*layer.committee]
        for member in layer.members:
            (seen,) = members.filter(expert_id=member.expert_id).rows(named=True)
            assert seen["presence"] == member.presence
            assert (seen["rank_mean"], seen["rank_var"]) == (member.rank_mean, member.rank_var)
            assert seen["listed_eci_mean"] == pytest.approx(member.contribution_mean, rel=1e-13)
        assert (row["size"], row["num_candidates"]) == (len(layer.members), layer.num_candidates)
        assert row["fallback"] == layer.fallback_used
        assert row["coverage"] == pytest.approx(layer.coverage, rel=1e-13)
        assert row["coverage_equal_weight"] == layer.coverage_equal_weight
        for name in ("influence_density", "influence_density_equal_weight"):
            seen = math.inf if row[name] is None else row[name]
            assert seen == pytest.approx(getattr(layer, name), rel=1e-9), name
        assert row["inverse_density"] == pytest.approx(1 / layer.influence_density, abs=1e-12)
    overlaps = take(lake, "domain_overlap", **options)
    assert overlaps.select("layer_id", "domain_a", "domain_b", "jaccard").rows() == [
        (row.layer_id, row.domain_a, row.domain_b, row.jaccard) for row in expected.overlaps
    ]
    if not rank_cutoff:  # the audit's closed form is of whole lists
        assert overlaps["jaccard_closed_form"].to_list() == pytest.approx(
            [expected.layers[0].jaccard_random] * overlaps.height, rel=1e-12
        )


def test_chance_is_domains_that_agree_by_chance(made, take, request):
    """Renamed experts: presence has mean k / E, overlap its closed form; a plant is beyond both."""
    lake, _ = made
    planted = "planted" in request.node.name
    overlaps = take(lake, "domain_overlap", draws=19)
    assert overlaps["jaccard_chance"].mean() == pytest.approx(
        overlaps["jaccard_closed_form"].mean(), abs=0.04
    )
    found = take(lake, "committee", draws=19)
    presence = found.group_by("layer_id").agg(pl.col("presence_chance").mean())
    assert presence["presence_chance"].to_list() == pytest.approx([TOP_K / NUM_EXPERTS] * 3)
    first = found.filter(expert_id=0)
    assert (first["presence"] == 1).all() or not planted
    assert (first["rank_mean"] <= first["rank_mean_chance_low"]).all() == planted
    layers = take(lake, "committee_coverage", draws=9)
    assert layers["coverage_chance"].is_between(0, 1).all()
    assert (layers["coverage_chance_high"] > layers["coverage_chance_low"]).all()


def test_draws_in_which_density_is_infinite_count(make_lake, request_of, take):
    """a lists 0, 1. b has {1: .9, 0: .1} and {0: .6, 1: .4}: with the first, 1, 0; else 0, 1.

    As recorded both are members, which take all. Of b's draws 1 of 4 holds the second request
    alone: 0 is the committee and takes .75 and .6 of 2, the others .65 / 3 each over its 1.35.
    """
    requests = [
        request_of("a", "a", [{3: {0: 0.75, 1: 0.25}}]),
        request_of("b", "b", [{3: {1: 0.9, 0: 0.1}}]),
        request_of("c", "b", [{3: {0: 0.6, 1: 0.4}}]),
    ]
    (row,) = take(make_lake(requests, num_experts=4), "committee_coverage", draws=39).to_dicts()
    assert (row["influence_density"], row["inverse_density"]) == (None, 0)
    assert row["inverse_density_low"] == pytest.approx(0, abs=1e-12)
    assert row["inverse_density_high"] == pytest.approx(0.65 / 3 / 1.35)
    assert row["inverse_density_chance"] > 0
