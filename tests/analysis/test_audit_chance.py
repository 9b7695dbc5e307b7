"""An audit beside chance, over Parquet tables: planted, not planted, left out."""

import math

import numpy as np
import pytest

from tracer.analysis.audit import audit
from tracer.analysis.layer_draws import eci_distance
from tracer.analysis.verdicts import can_say_agreement, can_say_differences
from tracer.errors import InputError
from tracer.records import NO_DOMAIN

NUM_EXPERTS, TOP_K = 16, 4
DOMAINS = ("art", "bio", "law")


def requests_with(request_of, *, shared, own, seed=0, sizes=(6, 5, 4)):
    """Experts 0 to ``shared`` - 1 lead everywhere, and ``own`` more in each domain; two layers."""
    rng = np.random.default_rng(seed)

    def token(number):
        layers = {}
        for layer in (1, 4):
            score = rng.normal(size=NUM_EXPERTS)
            score[:shared] += 4
            score[shared + own * number : shared + own * (number + 1)] += 4
            gates = np.exp(score) / np.exp(score).sum()
            chosen = np.argsort(-gates)[:TOP_K]
            layers[layer] = {int(e): float(gates[e]) for e in chosen}
        return layers

    return [
        request_of(f"{domain}-{place}", domain, [token(number) for _ in range(rng.integers(3, 7))])
        for number, domain in enumerate(DOMAINS)
        for place in range(sizes[number])
    ]


@pytest.fixture
def lake_with(make_lake, request_of):
    def lake(shared, own, *, folder="lake", **options):
        requests = requests_with(request_of, shared=shared, own=own, **options)
        return make_lake(requests, num_experts=NUM_EXPERTS, top_k=TOP_K, folder=folder)

    return lake


def test_estimates_are_the_audit_s_own(lake_with):
    """From sums per request as from sums per domain."""
    found = audit(lake_with(2, 1), draws=19)
    assert len(found.layers) == len(found.chance.layers) == 2
    for layer, chance in zip(found.layers, found.chance.layers, strict=True):
        assert layer.layer_id == chance.layer_id
        estimates = {s.statistic: s.estimate for s in chance.statistics if s.null == "experts"}
        assert estimates == {
            "jaccard_mean": pytest.approx(layer.jaccard_mean),
            "presence_top": estimates["presence_top"],
            "eci_distance": estimates["eci_distance"],
            "coverage_lift": pytest.approx(layer.coverage / layer.coverage_equal_weight),
            "gini": pytest.approx(layer.gini),
            "committee_size": len(layer.committee),
            "num_candidates": layer.num_candidates,
            "rank_mean": pytest.approx(layer.rank_mean),
            "rank_var": pytest.approx(layer.rank_var),
            "coverage": pytest.approx(layer.coverage),
            "influence_density": pytest.approx(layer.influence_density),
        }
        assert tuple(e for e, _ in chance.membership[: len(layer.committee)]) == layer.committee


def test_a_committee_and_domains_that_differ(lake_with):
    """Two experts are shared, one is each domain's own, the fourth is chance: 2 of 6 at least.

    Chance of the Jaccard index lies about the closed form of two random sets."""
    found = audit(lake_with(2, 1), draws=199)
    chance = found.chance
    assert chance.agreement == "standing committee: agreement across domains beyond chance"
    assert chance.differences == "domains differ beyond chance"
    for layer, plain in zip(chance.layers, found.layers, strict=True):
        jaccard = layer.of("jaccard_mean", "experts")
        assert jaccard.estimate >= 1 / 3
        assert jaccard.chance == pytest.approx(plain.jaccard_random, abs=0.03)
        assert jaccard.chance_low < jaccard.chance < jaccard.chance_high
        assert jaccard.p <= jaccard.p_adjusted < 0.1
        distance = layer.of("eci_distance", "experts")
        assert distance.estimate < distance.chance_low < distance.chance < distance.chance_high
        assert distance.p_adjusted <= 2 / 200
        assert layer.of("task_specificity", "labels").p_adjusted == 1 / 200
        assert [d.domain for d in layer.specificity] == list(DOMAINS)
        assert [d.num_requests for d in layer.specificity] == [6, 5, 4]
        specificities = [d.specificity.estimate for d in layer.specificity]
        mean = layer.of("task_specificity", "labels").estimate
        assert mean == pytest.approx(np.mean(specificities))
        share = dict(layer.membership)
        assert {0, 1} & set(plain.committee)
        assert all(0 < share[expert] <= 1 for expert in plain.committee)


def test_a_committee_of_domains_that_do_not_differ(lake_with):
    chance = audit(lake_with(4, 0), draws=99).chance
    assert chance.agreement.startswith("standing committee")
    assert chance.differences == "domains differ no more than by chance"


def test_domains_that_differ_without_a_committee(lake_with):
    """Each domain has its own four of 16."""
    chance = audit(lake_with(0, 4), draws=99).chance
    assert chance.agreement == "no more agreement than chance"
    assert chance.differences == "domains differ beyond chance"
    labels = chance.layers[0].of("jaccard_mean", "labels")
    assert labels.estimate < labels.chance_low
    assert labels.p_adjusted <= 0.05


def test_a_seed_gives_the_same_numbers_and_another_one_others(lake_with):
    lake = lake_with(2, 1)
    assert audit(lake, draws=19, seed=3).chance == audit(lake, draws=19, seed=3).chance
    assert audit(lake, draws=19, seed=3).chance != audit(lake, draws=19, seed=4).chance
    found = audit(lake, draws=19, seed=3).chance
    assert (found.draws, found.seed, found.level, found.alpha) == (19, 3, 0.95, 0.05)


def test_eci_distance_by_hand():
    """Shares (3/4, 1/4), (1/4, 3/4) and (0, 1) lie 1/2, 3/4 and 1/4 apart; an empty domain none."""
    values = np.array([[[3, 1], [0.5, 1.5], [np.nan, 2], [np.nan, np.nan]]])
    assert eci_distance(values) == pytest.approx([0.5])
    assert np.isnan(eci_distance(values[:, 2:])).all()


def test_progress_names_every_layer(lake_with):
    told = []
    audit(lake_with(2, 1), draws=1, progress=told.append)
    assert told == ["layer 1 (1 of 2)", "layer 4 (2 of 2)"]


def test_too_few_to_say(lake_with, make_lake, request_of):
    few = "too few domains or requests to say"
    chance = audit(lake_with(2, 1), draws=18).chance  # 1/19 is above 5 %
    assert (chance.agreement, chance.differences) == (few, few)
    chance = audit(lake_with(2, 1, sizes=(9, 1, 1), folder="ones"), draws=19).chance
    assert (chance.agreement, chance.differences) == (few, few)
    one = make_lake([request_of("q", "a", [{0: {1: 0.6, 2: 0.4}}])], folder="single")
    layer = audit(one, draws=19).chance.layers[0]
    assert (layer.agreement, layer.differences) == (few, few)
    assert math.isnan(layer.of("jaccard_mean", "experts").p)


def test_what_can_be_said():
    """Two domains of two requests may be exchanged in 3 ways, of three requests in 10, two of three
    and four in 35; a list of 2 of 4 is one of 12, two lists one of 144."""
    assert [can_say_differences(s, 99) for s in ([2, 2], [3, 3], [3, 4])] == [False, False, True]
    assert [can_say_agreement([2] * n, 99, 4, 2) for n in (2, 3)] == [False, True]
    assert not can_say_agreement([9, 9, 9], 99, 1, 1)
    assert not can_say_agreement([9, 1, 1], 99, 64, 8)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"draws": -1}, "-1 draws with seed 0 cannot be made"),
        ({"draws": 9, "seed": -1}, "9 draws with seed -1 cannot be made"),
        ({"draws": 9, "mode": "reference"}, "mode 'reference' has no draws"),
    ],
)
def test_draws_that_cannot_be_made(lake_with, options, message):
    with pytest.raises(InputError, match=message):
        audit(lake_with(2, 1), **options)


def test_no_draws_leave_the_audit_as_it_was(lake_with):
    assert audit(lake_with(2, 1)).chance is None


def test_requests_without_a_domain_are_left_out(make_lake, request_of):
    requests = requests_with(request_of, shared=2, own=1)
    lost = request_of("lost", NO_DOMAIN, [{1: {9: 1.0, 8: 0.0, 7: 0.0, 6: 0.0}}])
    options = {"num_experts": NUM_EXPERTS, "top_k": TOP_K}
    plain = audit(make_lake(requests, **options), draws=19)
    mixed = audit(make_lake([*requests, lost], folder="mixed", **options), draws=19)
    assert mixed.num_unlabelled == 1
    assert mixed.chance == plain.chance


def test_renamed_domains_are_drawn_as_such(lake_with):
    lake = lake_with(0, 4)
    found = audit(lake, draws=19, domains={"bio": "art"})
    assert [d.domain for d in found.chance.layers[0].specificity] == ["art", "law"]
    assert [d.num_requests for d in found.chance.layers[0].specificity] == [11, 4]
