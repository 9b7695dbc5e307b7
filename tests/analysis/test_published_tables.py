"""The full-layer tables of COMMITTEEAUDIT (arXiv 2601.03425 v2, Tables 4, 8 to 11), recomputed.

Ratio and coverage follow from each other; printed coverage is rounded to 0.1 %. Qwen3's layers 16
and 18 to 32 do not follow from the formula and are left out, as is the whole of Table 12.
"""

import pytest

from tests.analysis.test_analysis_committee import DEEPSEEK, LAYER, OLMOE
from tracer.analysis.committee import equal_weight_density, gini, influence_density

pytestmark = pytest.mark.golden

QWEN3 = """\
1:114 2.56/0.91/14.9/22.26; 2:119 2.78/2.17/14.4/21.40; 3:40,93,80,38 3.61/3.44/54.0/36.43;
4:34,120,84 3.63/3.78/40.2/28.02; 5:104,63,81 3.22/2.49/43.6/32.16;
6:68,1,37,66 4.25/2.95/52.6/34.39; 7:56,71,78 3.37/4.05/41.9/30.03;
8:112,101 3.67/0.77/27.1/23.36; 9:26 1.33/0.44/17.6/27.20; 10:114,84 4.39/0.68/26.7/22.96;
11:98,53,112 4.19/1.28/40.1/27.89; 12:60,125,7 3.15/1.98/43.3/31.83;
13:65,78,56 3.59/1.67/43.2/31.64; 14:122 1.78/0.62/17.1/26.25; 15:20,90,17 4.04/3.21/38.9/26.47;
16:116 3.33/1.33/20.6/24.64; 17:70,34,83 3.48/1.74/39.4/27.05; 18:61,31,77 3.59/2.44/46.7/32.06;
19:6,105,21 3.04/1.54/41.2/30.50; 20:121,92,17 3.89/1.83/42.1/28.01;
21:93,106,63 3.59/2.65/41.9/27.91; 22:99,106 2.39/1.21/27.7/25.04;
23:37,44,65 3.78/2.71/39.2/27.69; 24:121,86,36 3.63/2.46/42.4/29.03;
25:52,35,24 3.22/2.27/39.7/27.28; 26:113,109,33 3.81/2.13/44.5/31.03;
27:31,123 2.78/1.38/28.4/24.77; 28:78,73,62 3.78/2.61/41.3/28.77;
29:17,47,49 3.74/1.87/39.4/27.54; 30:116,65,40 3.81/2.24/41.7/28.96;
31:57,24,92 3.56/2.32/41.1/29.18; 32:83,9,32 3.63/2.49/43.6/30.14;
33:57,121,16,26,116 3.82/2.16/67.0/49.88; 34:9,96,110,64 3.86/2.83/54.0/36.40;
35:105,56 3.11/1.53/29.0/25.75; 36:63,23 3.00/2.99/28.7/25.35; 37:96 2.33/0.89/14.7/21.84;
38:0 1.11/0.10/17.2/26.40; 39:20,48,86 4.15/1.96/40.0/27.80; 40:85,49 2.33/1.32/30.9/28.16;
41:81,17,87 4.30/1.07/38.9/26.51; 42:55,21 2.17/2.14/30.6/27.80;
43:31,6,56 3.74/2.46/41.8/29.91; 44:71,31 3.33/0.84/29.6/26.53; 45:90 2.11/0.54/16.1/24.40;
46:107,94,101 3.15/1.59/50.9/43.26; 47:38,34 2.39/1.21/36.8/36.65; 48:101 2.89/0.99/14.2/20.99"""

QWEN3_OFF = {16, *range(18, 33)}


def layers_of(table):
    """(layer, size, mean rank, rank variance, coverage, ratio) of each printed layer."""
    return [
        (
            int(layer),
            len(members.split(",")),
            *map(float, (mean, var)),
            float(percent) / 100,
            float(r),
        )
        for layer, members, mean, var, percent, r in LAYER.findall(table)
    ]


def consistent(table, num_experts):
    """Layers whose printed ratio lies where their printed coverage lets it."""
    found = set()
    for layer, size, _, _, coverage, ratio in layers_of(table):
        low, high = (influence_density(coverage + d, size, num_experts) for d in (-51e-5, 51e-5))
        if low - 0.006 <= ratio <= high + 0.006:
            found.add(layer)
    return found


def test_ratios_follow_from_coverage():
    assert consistent(OLMOE, 64) == set(range(1, 17))
    assert consistent(DEEPSEEK, 64) == set(range(1, 27))
    assert consistent(QWEN3, 128) == set(range(1, 49)) - QWEN3_OFF


@pytest.mark.parametrize(
    ("table", "top_k", "lift", "mean", "majority"),
    [
        (OLMOE, 8, 1.28, 0.262, 0),
        (DEEPSEEK, 6, 1.14, 0.432, 10),
        (QWEN3, 8, 1.16, 0.358, 5),
    ],
)
def test_coverage_is_about_what_equal_weights_give(table, top_k, lift, mean, majority):
    """Mean of coverage over |C| / k, mean coverage, layers above one half."""
    layers = layers_of(table)
    lifts = [coverage * top_k / size for _, size, _, _, coverage, _ in layers]
    assert sum(lifts) / len(lifts) == pytest.approx(lift, abs=0.006)
    assert sum(row[4] for row in layers) / len(layers) == pytest.approx(mean, abs=6e-4)
    assert sum(row[4] > 0.5 for row in layers) == majority


@pytest.mark.parametrize(
    ("num_experts", "top_k", "floor", "least"),
    [(64, 8, 0.8750, 0.8814), (64, 6, 0.90625, 0.9092), (128, 8, 0.9375, 0.9405)],
)
def test_published_ginis_lie_just_above_what_truncation_makes(num_experts, top_k, floor, least):
    """k equal experts and zeros give 1 - k / E; the least printed is 0.003 to 0.007 more."""
    assert gini([0.1] * top_k, num_experts) == pytest.approx(floor)
    assert floor == 1 - top_k / num_experts
    assert 0 < least - floor < 0.007


def test_equal_weights_of_a_committee_of_four():
    """DeepSeek's layer 3: |C| = 4, k = 6, printed 66.3 % and 29.46; equal weights 66.7 % and 30."""
    layer = next(row for row in layers_of(DEEPSEEK) if row[0] == 3)
    assert layer[1] == 4
    assert layer[4] == pytest.approx(4 / 6, abs=0.005)
    assert layer[5] == pytest.approx(equal_weight_density(4, 6, 64), rel=0.02)
