"""eci: by hand, beside NumPy and the audit, and against exchanged domains."""

import numpy as np
import pytest

from tests.analysis.measures.conftest import LAYERS, NUM_EXPERTS, SIZES, arrays_of
from tracer.analysis.audit import audit


def test_by_hand(make_lake, request_of, take):
    """Law: weights 0.5 and 0 of expert 0 over two tokens are 0.25; its sums are (0.75 + 0.5) / 2.

    Art has one token; expert 3 is never chosen.
    """
    law = [{3: {0: 0.5, 1: 0.25}}, {3: {1: 0.375, 2: 0.125}}]
    lake = make_lake(
        [request_of("q", "law", law), request_of("p", "art", [{3: {2: 0.75, 0: 0.25}}])],
        num_experts=4,
    )
    assert take(lake, "eci").rows() == [
        (3, "art", 0, 1, 0.25),
        (3, "art", 1, 0, 0.0),
        (3, "art", 2, 1, 0.75),
        (3, "art", 3, 0, 0.0),
        (3, "law", 0, 1, 0.25),
        (3, "law", 1, 2, 0.3125),
        (3, "law", 2, 1, 0.0625),
        (3, "law", 3, 0, 0.0),
    ]


@pytest.mark.parametrize("tokens", ["all", "prompt", "generated", "last-prompt"])
def test_beside_numpy(made, take, tokens):
    lake, requests = made
    choices = arrays_of(requests, tokens)
    found = take(lake, "eci", tokens=tokens)
    assert found.height == len(LAYERS) * len(set(choices.domain)) * NUM_EXPERTS
    for (layer, domain), rows in found.group_by("layer_id", "domain", maintain_order=True):
        mine = choices.domain == domain
        weights = np.zeros((mine.sum(), NUM_EXPERTS))
        np.put_along_axis(weights, choices.ids[layer][mine], choices.weights[layer][mine], axis=1)
        assert rows["expert_id"].to_list() == list(range(NUM_EXPERTS))
        np.testing.assert_allclose(rows["eci"], weights.mean(axis=0), rtol=0, atol=1e-12)
        np.testing.assert_array_equal(rows["num_choices"], (weights > 0).sum(axis=0))


@pytest.mark.parametrize("tokens", ["prompt", "generated"])
def test_it_is_the_contribution_of_the_audit(made, take, tokens):
    lake, _ = made
    found = {row[:3]: row[4] for row in take(lake, "eci", tokens=tokens).rows() if row[3]}
    expected = {
        (row.layer_id, row.domain, row.expert_id): row.contribution
        for row in audit(lake, tokens=tokens).contributions
    }
    assert found.keys() == expected.keys()
    for key, value in found.items():
        assert value == pytest.approx(expected[key], rel=1e-14)


def test_exchanged_domains_have_the_mean_of_all(made, take, request):
    """A planted expert of a domain is above its band there; chance is near the mean of all tokens.

    Tokens of a domain are weighted by how requests fall, so the means agree roughly only.
    """
    lake, requests = made
    choices = arrays_of(requests)
    found = take(lake, "eci", draws=49)
    for layer in LAYERS:
        weights = np.zeros((len(choices.domain), NUM_EXPERTS))
        np.put_along_axis(weights, choices.ids[layer], choices.weights[layer], axis=1)
        chance = found.filter(layer_id=layer, domain="law")["eci_chance"]
        np.testing.assert_allclose(chance, weights.mean(axis=0), rtol=0, atol=0.03)
    planted = [
        found.filter(domain=domain, expert_id=1 + number)
        for number, domain in enumerate(SIZES)
        if domain != "poems"
    ]
    above = all((rows["eci"] > rows["eci_chance_high"]).all() for rows in planted)
    assert above == ("planted" in request.node.name)
