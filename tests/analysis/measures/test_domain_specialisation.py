"""domain_specialisation: by hand, beside NumPy, and against exchanged domains."""

import numpy as np
import pytest

from tests.analysis.measures.conftest import (
    LAYERS,
    NUM_EXPERTS,
    SIZES,
    TOP_K,
    arrays_of,
    assert_mean_of,
    usage_of,
)


def test_by_hand(make_lake, request_of, take):
    """Law has two tokens, {0, 1} and {0, 2}: 2/2, 1/2, 1/2, 0. Art has one, {0, 3}.

    Of all 3 tokens 3, 1, 1 and 1 chose them; k / E = 2 / 4."""
    law = [{3: {0: 0.6, 1: 0.4}}, {3: {0: 0.6, 2: 0.4}}]
    art = [{3: {0: 0.6, 3: 0.4}}]
    lake = make_lake([request_of("a", "law", law), request_of("b", "art", art)], num_experts=4)
    third = pytest.approx(1 / 3)
    assert take(lake, "domain_specialisation").rows() == [
        ("art", 3, 0, 1, 1, 1.0, 1.0, 0.5),
        ("art", 3, 1, 0, 1, 0.0, third, 0.5),
        ("art", 3, 2, 0, 1, 0.0, third, 0.5),
        ("art", 3, 3, 1, 1, 1.0, third, 0.5),
        ("law", 3, 0, 2, 2, 1.0, 1.0, 0.5),
        ("law", 3, 1, 1, 2, 0.5, third, 0.5),
        ("law", 3, 2, 1, 2, 0.5, third, 0.5),
        ("law", 3, 3, 0, 2, 0.0, third, 0.5),
    ]


@pytest.mark.parametrize("tokens", ["all", "prompt", "generated"])
def test_beside_numpy(made, take, tokens):
    lake, requests = made
    choices = arrays_of(requests, tokens)
    found = take(lake, "domain_specialisation", tokens=tokens)
    domains = sorted(set(choices.domain))
    assert found.height == len(domains) * len(LAYERS) * NUM_EXPERTS
    for domain in domains:
        for layer, ids in choices.ids.items():
            rows = found.filter(domain=domain, layer_id=layer)
            assert rows["expert_id"].to_list() == list(range(NUM_EXPERTS))
            chosen = (ids[:, :, None] == np.arange(NUM_EXPERTS)).any(axis=1)
            mine = choices.domain == domain
            assert rows["num_tokens"].to_list() == [mine.sum()] * NUM_EXPERTS
            np.testing.assert_allclose(rows["specialisation"], chosen[mine].mean(0), atol=1e-12)
            np.testing.assert_allclose(rows["overall_share"], chosen.mean(0), atol=1e-12)
            assert rows["specialisation"].sum() == pytest.approx(TOP_K)


def test_domain_experts_stand_out_from_exchanged_domains(planted, take):
    """The mean by chance is that of shares recomputed under 500 exchanges of labels.

    Experts 1, 2 and 3 are law's, math's and poems'; 0 is everybody's. The two large domains' own
    experts stand out; expert 0 does not.
    """
    lake, requests = planted
    usage = usage_of(arrays_of(requests))
    found = take(lake, "domain_specialisation", draws=39)
    rng = np.random.default_rng(0)
    simulated = []
    for _ in range(500):
        domain = rng.permutation(usage.domain)
        sums = [
            [usage.counts[layer][domain == name].sum(0) for layer in LAYERS]
            for name in sorted(SIZES)
        ]
        sums = np.array(sums)
        simulated.append((sums / sums.sum(-1, keepdims=True) * TOP_K).ravel())
    assert_mean_of(found["specialisation_chance"], np.array(simulated), 39)
    for domain, own in (("law", 1), ("math", 2)):
        rows = found.filter(domain=domain, expert_id=own)
        assert (rows["specialisation_p"] <= 0.05).all()
        assert (rows["specialisation"] > rows["specialisation_chance_high"]).all()
    assert (found.filter(expert_id=0)["specialisation_p_adjusted"] > 0.05).all()
