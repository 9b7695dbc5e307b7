"""Committee arithmetic, and whole layers from given lists."""

import math
import re

import polars as pl
import pytest

from tracer.analysis.committee import (
    candidates,
    equal_weight_density,
    expected_jaccard,
    gini,
    inferred_num_experts,
    influence_density,
    pareto,
    presence_threshold,
    reference_moments,
)
from tracer.analysis.layers import Rules, audit_layers
from tracer.analysis.sql import empty_connection

OLMOE = """1:49 1.00/0.00/21.5/17.25; 2:58,63,30 3.41/2.15/43.9/15.94; 3:60,14 3.17/1.17/30.9/13.84;
4:9,56 1.67/0.33/34.4/16.24; 5:27 3.11/0.99/14.5/10.68; 6:53 1.78/1.06/16.3/12.27;
7:1 1.89/0.54/16.4/12.38; 8:13,45 3.28/0.49/29.7/13.10; 9:27 1.33/0.22/17.3/13.15;
10:8,12 3.78/0.49/28.3/12.27; 11:30,6 4.28/1.05/26.8/11.35; 12:33 2.00/2.00/17.1/12.96;
13:30,55 2.50/1.95/30.6/13.69; 14:46,4 2.22/0.73/31.3/14.14; 15:1 1.78/0.62/16.9/12.78;
16:60,52,17 3.19/1.52/44.0/15.99"""

DEEPSEEK = """1:25,57 3.33/0.58/34.8/16.58; 2:19,51,46 3.00/1.98/52.0/22.02;
3:42,7,13,22 3.36/1.81/66.3/29.46; 4:25,59,13 2.44/1.72/57.3/27.25; 5:38 1.22/0.17/22.0/17.74;
6:35,46 3.83/1.00/31.5/14.25; 7:50,17 3.33/0.33/34.5/16.36; 8:45,46 2.33/1.51/37.9/18.88;
9:38,46,41 2.70/1.43/56.7/26.66; 10:60 1.22/0.40/23.6/19.41; 11:54,43,28 2.59/0.35/60.7/31.36;
12:30 1.33/0.44/21.9/17.63; 13:29,6 2.39/0.46/40.6/21.17; 14:5,28,33 2.37/1.43/58.7/28.93;
15:8,6,0 3.04/1.22/56.1/26.00; 16:24 1.33/0.22/20.4/16.18; 17:40,25,31 3.89/0.91/44.3/16.18;
18:51,46,53,0 3.67/0.65/65.5/28.43; 19:61,14,47,4 3.11/0.76/70.5/35.78;
20:44,7 3.33/0.47/34.3/16.17;
21:48 1.67/0.67/22.1/17.85; 22:40,21 3.33/1.32/35.4/17.00; 23:23,6,38 3.30/0.58/52.1/22.14;
24:60,61 2.00/1.06/42.7/23.08; 25:44,1 1.83/0.32/46.3/26.74; 26:36,56 3.17/0.56/34.6/16.41"""

LAYER = re.compile(r"(\d+):([\d,]+) ([\d.]+)/([\d.]+)/([\d.]+)/([\d.]+)")


@pytest.mark.golden
@pytest.mark.parametrize(("table", "num_layers"), [(OLMOE, 16), (DEEPSEEK, 26)])
def test_influence_density_reproduces_the_printed_ratios(table, num_layers):
    """Both models have E = 64; coverage is printed to 0.1 %, so the ratio lies between the
    values for coverage +- 0.05 %."""
    layers = LAYER.findall(table)
    assert len(layers) == num_layers
    for layer, members, _, _, percent, ratio in layers:
        size = len(members.split(","))
        low, high = (
            influence_density((float(percent) + d) / 100, size, 64) for d in (-0.051, 0.051)
        )
        assert low - 0.006 <= float(ratio) <= high + 0.006, layer


def lists_frame(lists):
    """{(layer, domain): (experts, values)} as contributions."""
    rows = [
        (layer, domain, expert, value)
        for (layer, domain), (experts, values) in lists.items()
        for expert, value in zip(experts, values, strict=True)
    ]
    return pl.DataFrame(
        rows, schema=["layer_id", "domain", "expert_id", "contribution"], orient="row"
    )


def layers_of(lists, *, reference, num_domains, rank_cutoff, num_experts=64):
    rules = Rules(reference, num_domains, num_experts, rank_cutoff, min_presence=0.8)
    return audit_layers(empty_connection(), lists_frame(lists), rules)


def rounded(layer):
    return (
        set(layer.committee),
        round(layer.rank_mean, 2),
        round(layer.rank_var, 2),
        round(layer.coverage, 4),
        round(layer.influence_density, 2),
    )


@pytest.mark.golden
def test_readme_table_of_the_reference():
    """Printed there: 3, 1, 1.33, 0.22, 0.3373, 32.07 and 9, 12, 3: 3, 3.11, 2.15, 0.5633, 26.22.

    Layer 2 has no candidate in all 3 domains, falls back, and 9 and 12 tie at ranks 1, 2, 5."""
    found = layers_of(
        {
            (1, "a"): ([3, 18, 42, 7], [0.31, 0.22, 0.19, 0.14]),
            (1, "b"): ([18, 3, 5, 42], [0.28, 0.24, 0.21, 0.15]),
            (1, "c"): ([3, 42, 18, 9], [0.30, 0.20, 0.18, 0.10]),
            (2, "a"): ([9, 12, 3, 40], [0.35, 0.20, 0.17, 0.11]),
            (2, "b"): ([12, 9, 41, 3], [0.33, 0.21, 0.16, 0.12]),
            (2, "c"): ([7, 8, 1, 2], [0.25, 0.25, 0.20, 0.10]),
        },
        reference=True,
        num_domains=3,
        rank_cutoff=4,
    )
    first, second = found.layers
    assert rounded(first) == ({3}, 1.33, 0.22, 0.3373, 32.07)
    assert rounded(second) == ({9, 12, 3}, 3.11, 2.15, 0.5633, 26.22)
    assert second.committee == (9, 12, 3)
    assert (first.fallback_used, second.fallback_used) == (False, True)
    assert (first.num_candidates, second.num_candidates) == (3, 3)
    assert found.num_experts == 64


@pytest.mark.golden
def test_short_lists_of_the_reference():
    """Printed there: 0, "3, 18", 2, 2.33, 1.56, 0.5966, 93.17; id 70 makes it infer 128 experts.

    Lists are shorter than k = 3, which only the script's long format has, so nothing is filled up;
    nobody is in all three domains, 3 and 18 are in two."""
    found = layers_of(
        {
            (0, "a"): ([3, 18], [0.31, 0.22]),
            (0, "b"): ([18, 3, 5], [0.28, 0.24, 0.21]),
            (0, "c"): ([70], [0.5]),
        },
        reference=False,
        num_domains=3,
        rank_cutoff=3,
        num_experts=inferred_num_experts(70),
    )
    assert rounded(found.layers[0]) == ({3, 18}, 2.33, 1.56, 0.5966, 93.17)


@pytest.mark.parametrize(("reference", "coverage"), [(True, 0.3), (False, 0.6)])
def test_a_domain_missing_from_a_layer(reference, coverage):
    """Layer 4 has lists of 2 of n = 4 domains: expert 1 has ranks 1, 1, 3, 3.

    Coverage is (0.4 + 0.2) / 4, in the reference over the mean of the two lists (0.6 + 0.4) / 2,
    in gate mode over the mean of all four, (0.6 + 0.4) / 4. In layer 0 expert 1 has 0.9 of 1."""
    lists = {(0, domain): ([1, 2], [0.9, 0.1]) for domain in "abcd"}
    lists |= {(4, "a"): ([1, 2], [0.4, 0.2]), (4, "b"): ([1, 3], [0.2, 0.2])}
    found = layers_of(lists, reference=reference, num_domains=4, rank_cutoff=2)
    first, last = found.layers
    assert (first.committee, first.coverage) == ((1,), pytest.approx(0.9))
    assert first.influence_density == pytest.approx(0.9 / (0.1 / 63))
    assert (last.layer_id, last.committee, last.fallback_used) == (4, (1,), True)
    assert (last.rank_mean, last.rank_var, last.members[0].presence) == (2, 1, 0.5)
    assert last.coverage == pytest.approx(coverage)
    overlaps = [(o.domain_a, o.domain_b, o.jaccard) for o in found.overlaps if o.layer_id == 4]
    assert overlaps == [("a", "b", pytest.approx(1 / 3))]


def test_reference_fills_lists_with_experts_of_value_zero():
    """k = 3 of 64: experts 0 and 1 fill a's list after expert 5; b lists 0 and 1 with weight.

    All three are in both lists: 0 has ranks 2, 1, expert 1 ranks 3, 2, expert 5 ranks 1, 3.
    Pareto on (mean, variance): 0 (1.5, 0.25); 1 (2.5, 0.25) is beaten; 5 (2, 1) is beaten."""
    lists = {(0, "a"): ([5], [0.9]), (0, "b"): ([0, 1, 5], [0.6, 0.2, 0.1])}
    found = layers_of(lists, reference=True, num_domains=2, rank_cutoff=3)
    a = [(c.expert_id, c.contribution, c.rank) for c in found.contributions if c.domain == "a"]
    assert a == [(5, 0.9, 1), (0, 0, 2), (1, 0, 3)]
    assert found.layers[0].num_candidates == 3
    assert found.layers[0].committee == (0,)
    assert found.layers[0].coverage == pytest.approx(0.3 / 0.9)


def test_threshold_rounds_up():
    """0.8 of 9 is 7.2, of 4 is 3.2, of 5 is 4; 0.55 of 100 is 55.00000000000001 in floats."""
    assert [presence_threshold(n, 0.8) for n in (9, 4, 5, 1)] == [8, 4, 4, 1]
    assert presence_threshold(7, 0.5) == 4
    assert presence_threshold(100, 0.55) == 55
    assert presence_threshold(9, 1e-12) == 1


def test_candidates_fall_back_to_the_most_listed():
    assert candidates({5: 3, 2: 4, 9: 4}, 3) == ([2, 5, 9], False)
    assert candidates({5: 2, 2: 1, 9: 2}, 3) == ([5, 9], True)


def test_pareto_keeps_ties_and_drops_the_beaten():
    """4 is beaten by 3 (same variance, smaller mean); 1 and 2 are equal and stay."""
    points = {2: (2.0, 1.0), 1: (2.0, 1.0), 3: (3.0, 0.5), 4: (4.0, 0.5), 5: (1.0, 9.0)}
    assert pareto(points) == [5, 1, 2, 3]


def test_reference_moments_count_missing_domains_as_below_the_list():
    """Ranks 1, 2 and k + 1 = 5: mean 8/3, variance 26/9."""
    assert reference_moments([1, 2], 3, 4) == (pytest.approx(8 / 3), pytest.approx(26 / 9))


def test_reference_moments_show_the_order_of_summation():
    """Some order of the same nine ranks must differ, or exact values would do in their place."""
    ranks = [1, 2, 2, 3, 5, 6, 7, 8, 8]
    variances = {reference_moments(ranks[i:] + ranks[:i], 9, 8)[1] for i in range(9)}
    assert len(variances) > 1
    assert max(variances) - min(variances) < 1e-14


def test_inferred_sizes():
    assert [inferred_num_experts(i) for i in (5, 63, 64, 127, 128, 255, 256, 511)] == [
        64,
        64,
        128,
        128,
        256,
        256,
        257,
        512,
    ]


def test_influence_density_at_the_edges():
    assert influence_density(0.5, 0, 8) == 1
    assert influence_density(0.5, 8, 8) == 1
    assert influence_density(1.0, 2, 8) == math.inf
    assert influence_density(0.25, 2, 8) == pytest.approx(1.0)


def test_equal_weight_density():
    """E 64, k 6, |C| 4: 60 / 2; the same by influence_density at coverage 4/6."""
    assert equal_weight_density(4, 6, 64) == 30
    assert influence_density(4 / 6, 4, 64) == pytest.approx(30)
    assert equal_weight_density(6, 6, 64) == math.inf


@pytest.mark.parametrize(
    ("size", "num_experts", "expected"), [(8, 64, 0.0705), (6, 64, 0.0532), (8, 128, 0.0343)]
)
def test_expected_jaccard_of_the_published_models(size, num_experts, expected):
    assert expected_jaccard(size, num_experts) == pytest.approx(expected, abs=5e-5)


def test_expected_jaccard_by_hand():
    """Two 2-sets of 3 share one (2/3, index 1/3) or both (1/3, index 1): 5/9."""
    assert expected_jaccard(2, 3) == pytest.approx(5 / 9)
    assert expected_jaccard(3, 3) == 1
    assert expected_jaccard(1, 4) == pytest.approx(1 / 4)


def test_gini():
    """Equal shares 0; one of four holds all 3/4; k equal of E gives 1 - k/E; 1 and 3 gives 1/4."""
    assert gini([0.5] * 4, 4) == pytest.approx(0)
    assert gini([2.0], 4) == pytest.approx(0.75)
    assert gini([0.1] * 8, 64) == pytest.approx(0.875)
    assert gini([1, 3], 2) == pytest.approx(0.25)
    assert gini([0.0], 3) == 0
