"""dirichlet_fit: a uniform prior by hand, beside NumPy, and what shuffled logits leave."""

import numpy as np
import pytest

from tests.analysis.measures.conftest import LAYERS, NUM_EXPERTS, arrays_of

EDGES = (np.arange(65) / 64) ** 4


def test_by_hand(make_lake, request_of, take):
    """E = 2, p = 1/2 +- 1/sqrt(12): the mean square about 1/2 is 1/12, of a uniform p; alpha = 1.

    The share below x is 0, 1/2 and 1 with steps at s = 0.2113 and 1 - s, x under the prior. The
    squared difference integrates to 2 s^3 / 3 + 2 (1/2 - s)^3 / 3 = 0.02233.
    """
    step = 0.5 - 1 / np.sqrt(12)
    logit = float(np.log((1 - step) / step))
    kinds = [[logit, 0.0], [0.0, logit]]
    tokens = [{3: {kind: 0.75}} for kind in (0, 1)]
    logits = [{3: kind} for kind in kinds]
    request = request_of("q", "law", tokens, logits=logits)
    found = take(make_lake([request], num_experts=2, top_k=1), "dirichlet_fit")
    exact = 2 * step**3 / 3 + 2 * (0.5 - step) ** 3 / 3
    for expert, row in enumerate(found.rows()):
        assert row[:2] == (3, expert)
        assert row[2:4] == (pytest.approx(0.5), pytest.approx(1, abs=1e-6))
        assert row[4] == pytest.approx(exact, abs=0.002)


def beta_below(alpha, num_experts):
    """The Beta distribution function at the edges by a sum over 4,000,000 points."""
    edges = (np.arange(4_000_001) / 4_000_000) ** 4
    rise = (edges[1:] ** alpha - edges[:-1] ** alpha) / alpha
    middle = (edges[1:] + edges[:-1]) / 2
    mass = rise * (1 - middle) ** ((num_experts - 1) * alpha - 1)
    below = np.concatenate([[0], np.cumsum(mass)]) / mass.sum()
    return below[:: 4_000_000 // 64]


def expected(logits):
    """(mean probability, alpha, distance) by expert of logits [tokens, experts]."""
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    p = weights / weights.sum(axis=1, keepdims=True)
    num_experts = p.shape[1]
    square = ((p - 1 / num_experts) ** 2).mean()
    alpha = ((1 / num_experts) * (1 - 1 / num_experts) / square - 1) / num_experts
    prior = beta_below(alpha, num_experts)
    found = []
    for expert in range(num_experts):
        below = np.array([(p[:, expert] <= edge).mean() for edge in EDGES])
        gap = (below - prior) ** 2
        found.append(
            (p[:, expert].mean(), alpha, (np.diff(prior) * (gap[1:] + gap[:-1]) / 2).sum())
        )
    return np.array(found)


@pytest.mark.parametrize("tokens", ["all", "prompt"])
def test_beside_numpy(made, take, tokens):
    """The prior's function is integrated 60,000 times as finely here: within 0.001."""
    lake, requests = made
    logits = arrays_of(requests, tokens).logits
    found = take(lake, "dirichlet_fit", tokens=tokens)
    for layer in LAYERS:
        rows = found.filter(layer_id=layer)
        wanted = expected(logits[layer])
        assert rows["expert_id"].to_list() == list(range(NUM_EXPERTS))
        np.testing.assert_allclose(rows["mean_probability"], wanted[:, 0], rtol=1e-9)
        np.testing.assert_allclose(rows["alpha"], wanted[:, 1], rtol=1e-9)
        np.testing.assert_allclose(rows["distance"], wanted[:, 2], atol=1e-3)


def test_a_dirichlet_router_is_near_its_prior_and_a_skewed_one_is_not(make_lake, request_of, take):
    """2,000 tokens of Dirichlet(0.8) over four experts; then with the logits of one raised by 3."""
    rng = np.random.default_rng(0)
    draws = rng.dirichlet([0.8] * 4, 2000).clip(1e-9)
    worst = []
    for raised in (0, 3):
        logits = (np.log(draws) + np.array([raised, 0, 0, 0])).tolist()
        tokens = [{0: {int(np.argmax(row)): 0.5}} for row in logits]
        request = request_of("q", "law", tokens, logits=[{0: row} for row in logits])
        lake = make_lake([request], num_experts=4, top_k=1, folder=str(raised))
        found = take(lake, "dirichlet_fit")
        worst.append(found["distance"].max())
        if not raised:
            assert found["alpha"][0] == pytest.approx(0.8, rel=0.05)
    assert worst[0] < 0.002
    assert worst[1] > 0.05


def test_draws_of_logits_keep_mean_logits_not_the_plant(planted, take):
    """Expert 0 is raised for all tokens alike, so it lies off the prior under shuffling, too."""
    found = take(planted[0], "dirichlet_fit", draws=9)
    raised = found.filter(expert_id=0)
    assert (raised["distance_chance"] > found.filter(expert_id=5)["distance_chance"]).all()
    assert (found["distance_chance_low"] <= found["distance_chance"]).all()
