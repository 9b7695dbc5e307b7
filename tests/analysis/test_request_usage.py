"""Sums of requests drawn anew against plain loops over the same weights, and known errors."""

import math

import numpy as np
import pytest

from tracer.analysis.bootstrap import percentile_interval, poisson_weights
from tracer.analysis.request_usage import domain_contributions, request_layers
from tracer.analysis.sql import connect, run_query


@pytest.fixture
def requests_of(make_lake):
    """What is there to draw of a lake that is made of requests."""

    def make(requests, *, tokens="all", domains=None, **lake):
        made = make_lake(requests, **lake)
        names = {request.domain for request in requests if request.status == "complete"}
        new = domains or {}
        counted = {new.get(name, name) for name in names}
        return request_layers(
            connect(made), made.run(), tokens=tokens, domains=new, counted=counted
        )

    return make


def drawn(layers, layer_id, weights=None):
    """Contributions of each draw, or as recorded, [draws, domains, experts]; who is there."""
    labels, number = layers.domain[None], len(layers.domains)
    return domain_contributions(layers.layer(layer_id), labels, number, weights)


@pytest.fixture
def three(request_of):
    """law: q2 with a token of {1: .5, 2: .25} and a generated one of {1: .25, 3: .125}; q0 with one
    token of {2: 1, 3: 0}. art: q1 with one token of {0: .75, 1: .25}."""
    return [
        request_of("q2", "law", [{4: {1: 0.5, 2: 0.25}}], [{4: {1: 0.25, 3: 0.125}}]),
        request_of("q1", "art", [{4: {0: 0.75, 1: 0.25}}]),
        request_of("q0", "law", [{4: {2: 1.0, 3: 0.0}}]),
    ]


def test_a_draw_counts_each_request_as_often_as_its_weight_says(requests_of, three):
    """Weights are those of q0, q1, q2, in this order whatever their domains; k = 2."""
    layers = requests_of(three)
    assert (layers.domains, layers.num_requests.tolist()) == (("art", "law"), [1, 2])
    recorded, there = drawn(layers, 4)
    nan = math.nan
    expected = [[0.75, 0.25, nan, nan], [nan, 0.25, 1.25 / 3, 0.125 / 3]]
    np.testing.assert_array_equal(recorded[0, :, :4], expected)
    assert there.all()
    weights = poisson_weights(3, 50, 3)
    assert len({tuple(column) for column in weights.T}) > 10
    found, there = drawn(layers, 4, weights)
    assert np.isnan(found[..., 4:]).all()
    for draw, (q0, q1, q2) in enumerate(weights.T.astype(float)):
        art = [0.75, 0.25, nan, nan] if q1 else [nan] * 4
        sums = np.array([0, 0.75 * q2, q0 + 0.25 * q2, 0.125 * q2])
        chosen = np.array([0, q2, q0 + q2, q0 + q2]) > 0
        law = np.where(chosen, sums / max(q0 + 2 * q2, 1), nan)
        np.testing.assert_allclose(found[draw, :, :4], [art, law], rtol=1e-15)
        assert there[draw].tolist() == [q1 > 0, q0 + q2 > 0]


def test_the_one_request_of_a_domain_has_the_same_share_or_none(requests_of, three):
    found, _ = drawn(requests_of(three), 4, poisson_weights(3, 50, 3))
    shares = found[:, 0, 0]
    there = poisson_weights(3, 50, 3)[1] > 0
    assert 0 < there.sum() < 50
    assert set(shares[there].tolist()) == {0.75}
    assert np.isnan(shares[~there]).all()
    low, high = percentile_interval(found, 0.9)
    assert (low[0, 0], high[0, 0]) == (0.75, 0.75)


@pytest.mark.parametrize(
    ("tokens", "choices"),
    [("prompt", 4), ("last-prompt", 4), ("generated", 2), ("all", 6)],
)
def test_a_scope_takes_its_tokens_only(requests_of, three, tokens, choices):
    layers = requests_of(three, tokens=tokens)
    law = layers.domain == layers.domains.index("law")
    assert layers.layer(4).num_choices[law].sum() == choices
    assert layers.num_requests.tolist() == ([0, 1] if tokens == "generated" else [1, 2])


def test_requests_of_renamed_domains_are_summed_together(requests_of, three):
    layers = requests_of(three, domains={"art": "law"})
    assert (layers.domains, layers.num_requests.tolist()) == (("law",), [3])
    assert layers.layer(4).num_choices.sum(axis=0)[:4].tolist() == [1, 3, 2, 2]


def test_what_is_not_complete_is_not_drawn(requests_of, three, request_of):
    aborted = request_of("q4", "law", [{4: {6: 1.0, 7: 0.0}}], status="aborted")
    lost = request_of("q5", "new", three[1].prompt)
    layers = requests_of([*three, aborted], uncommitted=[lost])
    assert (layers.domains, layers.num_requests.tolist()) == (("art", "law"), [1, 2])
    assert not layers.layer(4).num_choices[:, 4:].any()


def test_nothing_recorded_is_no_domain(requests_of, three):
    layers = requests_of(three[:0])
    assert (layers.domains, layers.num_requests.tolist()) == ((), [])
    layers = requests_of(three[1:2], tokens="generated", folder="other")
    found, there = drawn(layers, 4, poisson_weights(0, 5, 1))
    assert np.isnan(found).all()
    assert not there.any()


def random_requests(request_of, count):
    """k = 2 of 8 in layers 1 and 5; three domains of unequal size."""
    rng = np.random.default_rng(count)

    def token():
        chosen = {layer: rng.permutation(8)[:2].tolist() for layer in (1, 5)}
        return {
            layer: dict(zip(ids, rng.random(2).tolist(), strict=True))
            for layer, ids in chosen.items()
        }

    return [
        request_of(
            f"q{number:04d}",
            f"d{min(number % 7, 2)}",
            [token() for _ in range(rng.integers(1, 5))],
            [token() for _ in range(rng.integers(0, 4))],
        )
        for number in range(count)
    ]


@pytest.mark.parametrize(("rows", "cells"), [(1, 1), (7, 100), (8192, 1 << 23)])
def test_parts_of_any_size_give_the_sums_of_a_loop(
    requests_of, request_of, monkeypatch, rows, cells
):
    """A request's phases may lie in two batches, draws of a domain in many parts."""
    monkeypatch.setattr("tracer.analysis.request_usage._ROWS", rows)
    monkeypatch.setattr("tracer.analysis.request_usage._CELLS", cells)
    requests = random_requests(request_of, 60)
    layers = requests_of(requests)
    weights = poisson_weights(60, 9, 3)
    for layer_id in (1, 5):
        found, there = drawn(layers, layer_id, weights)
        counts, sums, tokens = np.zeros((9, 3, 8)), np.zeros((9, 3, 8)), np.zeros((9, 3, 1))
        for number, request in enumerate(requests):
            domain = layers.domains.index(request.domain)
            for token in [*request.prompt, *request.generated]:
                tokens[:, domain, 0] += weights[number]
                for expert, weight in token[layer_id].items():
                    counts[:, domain, expert] += weights[number]
                    sums[:, domain, expert] += weights[number] * weight
        with np.errstate(invalid="ignore"):
            expected = np.where(counts > 0, sums / tokens, np.nan)
        np.testing.assert_allclose(found, expected, rtol=1e-6)
        assert np.array_equal(there, tokens[..., 0] > 0)


def test_draws_with_other_domains_are_those_of_a_loop(requests_of, request_of):
    """Domains exchanged and requests drawn anew at once, and the domains that stay."""
    layers = requests_of(random_requests(request_of, 60))
    usage, weights = layers.layer(5), poisson_weights(60, 9, 3)
    rng = np.random.default_rng(2)
    labels = np.array([layers.domain, *(rng.permutation(layers.domain) for _ in range(8))])
    found, there = domain_contributions(usage, labels, 3, weights)
    alone, _ = domain_contributions(usage, labels, 3)
    for draw, domain in enumerate(labels):
        one, present = domain_contributions(usage, domain[None], 3, weights[:, draw : draw + 1])
        np.testing.assert_allclose(found[draw], one[0], rtol=1e-12)
        assert np.array_equal(there[draw], present[0])
        once = np.ones((60, 1), dtype=np.uint8)
        again, _ = domain_contributions(usage, domain[None], 3, once)
        np.testing.assert_allclose(alone[draw], again[0], rtol=1e-12)


def test_recorded_shares_are_those_of_eci(requests_of, request_of):
    layers = requests_of(random_requests(request_of, 40), tokens="prompt")
    shares = {layer: drawn(layers, layer)[0][0] for layer in (1, 5)}
    rows = run_query(layers._con, "eci", run_id="r1", tokens="prompt").rows()
    assert len(rows) > 40
    for layer_id, domain, expert, _, _, eci in rows:
        share = shares[layer_id][layers.domains.index(domain), expert]
        assert share == pytest.approx(eci, rel=1e-12)


def test_errors_are_those_of_the_ratio_of_independent_requests(requests_of, request_of):
    """The standard error of sum(x) / sum(t) is sqrt(sum((x - r t)^2)) / sum(t), to first order.

    400 requests of 1 to 6 tokens that choose expert 0 with a weight of their own or expert 1. With
    4,000 draws a standard deviation is known to 1.1 % (1 / sqrt(2 x 4,000)).
    """
    rng = np.random.default_rng(5)
    requests, used, lengths = [], [], []
    for number in range(400):
        chosen = [{0: {0: float(np.float32(rng.random()))}} for _ in range(rng.integers(1, 7))]
        for token in chosen:
            if rng.random() < 0.4:
                token[0] = {1: 0.5}
        requests.append(request_of(f"q{number:03d}", "d", chosen))
        used.append(sum(token[0].get(0, 0) for token in chosen))
        lengths.append(len(chosen))
    x, t = np.array(used), np.array(lengths)
    share = x.sum() / t.sum()
    error = math.sqrt(((x - share * t) ** 2).sum()) / t.sum()
    layers = requests_of(requests, top_k=1)
    shares = drawn(layers, 0, poisson_weights(400, 4000, 3))[0][:, 0, 0]
    assert drawn(layers, 0)[0][0, 0, 0] == pytest.approx(share, rel=1e-9)
    assert shares.std() == pytest.approx(error, rel=0.05)
    assert shares.mean() == pytest.approx(share, abs=0.1 * error)
    low, high = percentile_interval(shares, 0.95)
    assert (high - low) / error == pytest.approx(2 * 1.96, rel=0.06)
