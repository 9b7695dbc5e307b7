"""sequence_clusters: by hand, beside NumPy, exchanged domains, and drawn copies."""

import math

import numpy as np
import pytest

from tests.analysis.measures.conftest import LAYERS, arrays_of, assert_mean_of, usage_of


def test_by_hand(make_lake, request_of, take):
    """Law: a {0, 1}, b {0, 1}, d {2, 3}; art: c {0, 2}, e {2, 3}.

    Nearest: a and b each other, c a (all at 1/2, a is first): wrong, d e and e d: wrong. 2 of 5.
    Centroids: a has law less a, (b + d) / 2, at 1 / sqrt 2, art (c + e) / 2 ~ (1, 0, 2, 1), at
    1 / sqrt 12: right, so b. d: law (a + b) / 2 at 0: wrong. c: law ~ (2, 2, 1, 1) at 3 / sqrt 20,
    art = e at 1/2: wrong. e: law at 1 / sqrt 5, art = c at 1/2: right. 3 of 5.
    Chance (3 * 2 + 2 * 1) / (5 * 4).
    """
    chosen = {"a": (0, 1), "b": (0, 1), "c": (0, 2), "d": (2, 3), "e": (2, 3)}
    requests = [
        request_of(name, "art" if name in "ce" else "law", [{3: {one: 0.6, two: 0.4}}])
        for name, (one, two) in chosen.items()
    ]
    found = take(make_lake(requests, num_experts=4), "sequence_clusters")
    assert found.rows() == [(3, 5, pytest.approx(0.4), pytest.approx(0.4), pytest.approx(0.6))]


def test_a_request_alone_in_its_domain_is_never_right(make_lake, request_of, take):
    """a and b, of law, find each other and their centroid; c, of art, finds law."""
    requests = [
        request_of(name, "art" if name == "c" else "law", [{3: {0: 0.6, 1: 0.4}}]) for name in "abc"
    ]
    (row,) = take(make_lake(requests), "sequence_clusters").rows()
    assert row == (3, 3, *(pytest.approx(share) for share in (2 / 3, 1 / 3, 0)))


def values(usage, domain, origin=None):
    """(nearest of own domain, nearest centroid own) by layer; those of equal origin left out."""
    origin = usage.request if origin is None else origin
    rows = []
    for layer in LAYERS:
        share = usage.counts[layer] / usage.counts[layer].sum(1, keepdims=True)
        nearest, own = [], []
        for place, name in enumerate(origin):
            others = origin != name

            def cosine(vector, mine=share[place]):
                return round(mine @ vector / math.sqrt((mine @ mine) * (vector @ vector)), 12)

            ranked = sorted((-cosine(share[n]), n) for n in np.flatnonzero(others))
            nearest.append(domain[ranked[0][1]] == domain[place])
            centroids = sorted(
                (-cosine(share[others & (domain == other)].mean(0)), other)
                for other in np.unique(domain[others])
            )
            own.append(centroids[0][1] == domain[place])
        rows.append((np.mean(nearest), np.mean(own)))
    return np.array(rows)


@pytest.mark.parametrize("tokens", ["all", "prompt", "generated"])
def test_beside_numpy(made, take, tokens):
    lake, requests = made
    usage = usage_of(arrays_of(requests, tokens))
    found = take(lake, "sequence_clusters", tokens=tokens)
    columns = found.select("nearest_same_domain", "own_centroid").to_numpy()
    np.testing.assert_allclose(columns, values(usage, usage.domain), rtol=0, atol=1e-12)
    sizes = np.unique(usage.domain, return_counts=True)[1]
    even = (sizes * (sizes - 1)).sum() / (sizes.sum() * (sizes.sum() - 1))
    assert found["nearest_closed_form"].to_list() == pytest.approx([even] * len(LAYERS))


def test_the_plant_is_told_from_exchanged_domains(planted, take):
    """Nearest requests: chance is the closed form, in 80 exchanges in NumPy and in 19 here."""
    lake, requests = planted
    usage = usage_of(arrays_of(requests))
    found = take(lake, "sequence_clusters", draws=19)
    rng = np.random.default_rng(0)
    simulated = np.array([values(usage, rng.permutation(usage.domain)) for _ in range(80)])
    assert_mean_of(found["nearest_same_domain_chance"], simulated[:, :, 0], 19)
    assert_mean_of(found["own_centroid_chance"], simulated[:, :, 1], 19)
    error = 4 * simulated[:, :, 0].std(0) / math.sqrt(19)
    off = np.abs(found["nearest_same_domain_chance"] - found["nearest_closed_form"]).to_numpy()
    assert (off <= error).all()
    assert (found["own_centroid"] > found["own_centroid_chance_high"]).all()


def test_copies_of_a_request_do_not_find_each_other(planted, take, copied):
    """Copies are left out together, in NumPy too. The interval of one draw is its value."""
    lake, requests = planted
    usage = usage_of(arrays_of(requests))
    some = usage.some(copied(usage.domain))
    found = take(lake, "sequence_clusters", draws=1)
    columns = found.select("nearest_same_domain_low", "own_centroid_low").to_numpy()
    np.testing.assert_allclose(columns, values(some, some.domain), atol=1e-12)
    loose = values(some, some.domain, origin=np.arange(len(some.domain)))
    assert (columns[:, 0] < loose[:, 0]).all()
