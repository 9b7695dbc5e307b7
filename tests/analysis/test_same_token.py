"""The same-token control: by hand, token by token, and what it tells apart."""

import numpy as np
import pytest

from benchmarks.false_positives import DOMAIN, by_token
from tests.analysis.measures.conftest import arrays_of, made_requests
from tracer.analysis.audit import audit
from tracer.analysis.request_usage import request_layers
from tracer.analysis.same_token import same_token_distance, same_token_usage
from tracer.analysis.sql import connect
from tracer.errors import InputError
from tracer.report.audit_text import render_csv, render_table


def test_excess_by_hand():
    """Word 5 in both domains, 6 only in domain 0, so left out; requests 0 and 1, one a domain.

    Word 5 got {0: .6} and {0: .4, 1: .2} in request 0, {1: .5} in request 1: on average
    {0: 1/3, 1: .7/3}. Request 0 has {0: 1, 1: .2} less two averages, request 1 {1: .5} less one.
    """
    found = same_token_usage(
        np.array([0, 0, 0, 1]),
        np.array([5, 5, 6, 5]),
        np.array([[0, 1], [0, 1], [2, 3], [1, 2]]),
        np.array([[0.6, 0.0], [0.4, 0.2], [0.9, 0.1], [0.5, 0.0]]),
        domain=np.array([0, 1]),
        num_experts=4,
    )
    assert found.num_compared.tolist() == [2, 1]
    assert found.share_compared == 0.75
    assert found.weight == pytest.approx([1.2, 0.5])
    expected = [[1 - 2 / 3, 0.2 - 1.4 / 3, 0, 0], [-1 / 3, 0.5 - 0.7 / 3, 0, 0]]
    assert found.excess == pytest.approx(np.array(expected), abs=1e-12)
    # Per token 1/6 and -.4/3 against -1/3 and .8/3: apart by 1/2 and .4; tokens have 1.7/3 each.
    distance = same_token_distance(found, np.array([[0, 1]]), 2)
    assert distance == pytest.approx([0.9 / 2 / (1.7 / 3)])


def test_nothing_is_left_where_the_token_decides_all():
    rng = np.random.default_rng(0)
    table = np.array([rng.permutation(8)[:2] for _ in range(10)])
    token_id = rng.integers(0, 10, 200)
    found = same_token_usage(
        rng.integers(0, 12, 200),
        token_id,
        table[token_id],
        np.full((200, 2), 0.5),
        domain=np.repeat([0, 1, 2], 4),
        num_experts=8,
    )
    assert found.share_compared == 1
    assert found.excess == pytest.approx(np.zeros((12, 8)), abs=1e-12)


def test_blocks_give_what_all_give(monkeypatch):
    rng = np.random.default_rng(1)
    words = rng.integers(0, 9, 150), rng.integers(0, 8, (150, 2)), rng.random((150, 2))
    request, domain = rng.integers(0, 12, 150), np.repeat([0, 1, 2], 4)
    labels = rng.permuted(np.tile(domain, (7, 1)), axis=1)

    def distance():
        found = same_token_usage(request, *words, domain=domain, num_experts=8)
        return same_token_distance(found, labels, 3)

    whole = distance()
    monkeypatch.setattr("tracer.analysis.same_token._CELLS", 8 * 5)
    monkeypatch.setattr("tracer.analysis.same_token._DRAWN", 12 * 3 * 2)
    assert distance() == pytest.approx(whole, rel=1e-12)


def test_no_word_in_two_domains_is_no_distance():
    found = same_token_usage(
        np.array([0, 1]),
        np.array([3, 4]),
        np.array([[0], [1]]),
        np.ones((2, 1)),
        domain=np.array([0, 1]),
        num_experts=2,
    )
    assert found.share_compared == 0
    assert np.isnan(same_token_distance(found, np.array([[0, 1]]), 2)).all()


@pytest.mark.parametrize(("of_domain", "control"), [(0.0, False), (1.0, True)])
def test_words_are_no_difference_and_domains_are(of_domain, control):
    """Raw shares differ either way, for domains have vocabularies of their own.

    100 runs: 5 % would be 5; the control is stricter, so none or almost none is claimed."""
    assert len(DOMAIN) == 21
    told = np.mean(
        [by_token(np.random.default_rng([2, n]), 39, n, of_domain=of_domain) for n in range(100)],
        axis=0,
    )
    assert told[0] > 0.7
    assert (told[1] > 0.7) if control else (told[1] <= 0.05)


def lake_of_words(make_lake, request_of, *, of_domain, unknown=False):
    """Two domains with other words, routed by token id, and by domain where ``of_domain``."""
    rng = np.random.default_rng(6)
    table = rng.normal(size=(12, 8)) * 2
    extra = rng.normal(size=(2, 8)) * of_domain
    requests = []
    for number in range(24):
        domain = number % 2
        words = rng.integers(0, 8, 12) + 4 * domain
        scores = table[words] + extra[domain] + 0.3 * rng.normal(size=(12, 8))
        gates = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
        tokens = []
        for row in gates.tolist():
            chosen = sorted(range(8), key=lambda e, row=row: -row[e])[:2]
            tokens.append({layer: {e: row[e] for e in chosen} for layer in (0, 3)})
        ids = [] if unknown else [*words.tolist(), 99]
        requests.append(
            request_of(f"q{number:02d}", "ab"[domain], tokens[:9], tokens[9:], token_ids=ids)
        )
    return make_lake(requests)


def test_an_audit_tells_words_from_domains(make_lake, request_of):
    lake = lake_of_words(make_lake, request_of, of_domain=0.0)
    words = audit(lake, tokens="all", draws=99, same_token=True).chance
    assert words.differences == "domains differ beyond chance"
    assert words.same_token == "domains differ no more than by chance"
    both = lake_of_words(make_lake, request_of, of_domain=2.0)
    found = audit(both, tokens="all", draws=99, same_token=True)
    assert found.chance.same_token == "domains differ beyond chance"
    statistic = found.chance.layers[0].of("same_token_distance", "labels")
    assert statistic.chance_high < statistic.estimate
    assert statistic.low < statistic.high
    assert statistic.p_adjusted == 1 / 100
    assert "\nthe same tokens compared: domains differ beyond chance (2 of 2" in render_table(found)
    assert "same_token_distance_p_adjusted" in render_csv(found)
    plain = audit(both, tokens="all", draws=99)
    assert plain.chance.same_token is None
    assert "same" not in render_csv(plain).splitlines()[0]


@pytest.mark.parametrize("tokens", ["prompt", "generated", "last-prompt", "all"])
def test_what_the_lake_gives_is_what_was_written(make_lake, request_of, tokens):
    """Excess of every request from the lake, against excess from lists of the requests."""
    requests = made_requests(5, planted=True)
    lake = make_lake(requests, num_experts=8, top_k=2)
    names = sorted({request.domain for request in requests})
    layers = request_layers(connect(lake), lake.run(), tokens=tokens, domains={}, counted=names)
    chosen = arrays_of(requests, tokens)
    order = sorted(set(chosen.request.tolist()))
    domain = {request.request_id: names.index(request.domain) for request in requests}
    for layer in (1, 2, 5):
        expected = same_token_usage(
            np.array([order.index(name) for name in chosen.request]),
            chosen.token_id,
            chosen.ids[layer],
            chosen.weights[layer],
            domain=np.array([domain[name] for name in order]),
            num_experts=8,
        )
        found = layers.same_token_layer(layer)
        assert found.excess == pytest.approx(expected.excess, abs=1e-12)
        assert found.num_compared.tolist() == expected.num_compared.tolist()


def test_what_the_control_needs(make_lake, request_of):
    lake = lake_of_words(make_lake, request_of, of_domain=0.0, unknown=True)
    with pytest.raises(InputError, match="has no token ids"):
        audit(lake, draws=9, same_token=True)
    for options in ({"draws": 0}, {"draws": 9, "mode": "paper"}):
        with pytest.raises(InputError, match="same-token control compares gate weights"):
            audit(lake, same_token=True, **options)
