"""prefix_similarity: by hand, beside every pair in NumPy, and its chance level."""

import itertools

import numpy as np
import pytest

from tests.analysis.measures.conftest import NUM_EXPERTS, arrays_of


def token(first, second):
    return {3: {first: 0.6, second: 0.4}}


def test_by_hand(make_lake, request_of, take):
    """Prefixes of one and two tokens. Law: q {0, 1} {0, 1}, r {0, 2} {0, 1}; art: s {2, 3}.

    After one token q and r share 0: 1/2; q and s nothing, r and s 2: mean 1/4. After two q is
    (2, 2, 0), r (2, 1, 1): 6 / (sqrt(8) * sqrt(6)); s is not so long. Generated tokens count from
    the first of them: q {2, 3}, s {2, 3}.
    """
    q = request_of("q", "law", [token(0, 1), token(0, 1)], [token(2, 3)])
    r = request_of("r", "law", [token(0, 2), token(0, 1), token(5, 6)])
    s = request_of("s", "art", [token(2, 3)], [token(2, 3)])
    found = take(make_lake([q, r, s]), "prefix_similarity", step=1, longest=2)
    one, half = pytest.approx(1.0), pytest.approx(0.5)
    assert found.rows() == [
        (3, "prompt", 1, 3, half, pytest.approx(0.25), pytest.approx(0.25)),
        (3, "prompt", 2, 2, pytest.approx(6 / 48**0.5), None, None),
        (3, "generated", 1, 2, None, one, None),
    ]


def of_pairs(choices, ids, phase, length):
    """(requests, mean cosine within a domain, across domains) over all pairs, one by one."""
    usages = {}
    for request in np.unique(choices.request):
        here = (choices.request == request) & (choices.phase == phase)
        if here.sum() >= length:
            counts = np.bincount(ids[here][:length].ravel(), minlength=NUM_EXPERTS)
            usages[request] = (choices.domain[here][0], counts / np.linalg.norm(counts))
    within, across = [], []
    for (one, u), (two, v) in itertools.combinations(usages.values(), 2):
        (within if one == two else across).append(u @ v)
    mean = [np.mean(found) if found else np.nan for found in (within, across)]
    return len(usages), *mean


@pytest.mark.parametrize(("tokens", "step"), [("all", 2), ("prompt", 3), ("generated", 1)])
def test_beside_numpy(made, take, tokens, step):
    lake, requests = made
    choices = arrays_of(requests, tokens)
    found = take(lake, "prefix_similarity", tokens=tokens, step=step, longest=8)
    keys, wanted = [], []
    for layer, ids in choices.ids.items():
        for phase in ("prompt", "generated"):
            for length in range(step, 9, step):
                count, within, across = of_pairs(choices, ids, phase, length)
                if count:
                    keys.append((layer, phase, length, count))
                    wanted.append((within, across, within - across))
    assert found.select("layer_id", "phase", "prefix_tokens", "num_requests").rows() == keys
    values = found.select("within_domain", "across_domains", "difference")
    np.testing.assert_allclose(values.cast(float).fill_null(np.nan), wanted, rtol=0, atol=1e-12)


def test_a_domain_that_shows_late_is_told_from_chance(make_lake, request_of, take):
    """Four tokens of chance, then 12 of the domain's own expert: only the long prefix differs.

    Chance is the mean over exchanged domains in NumPy."""
    rng = np.random.default_rng(6)
    requests = []
    for number in range(16):
        early = [token(*rng.permutation(8)[:2].tolist()) for _ in range(4)]
        late = [token(number % 2, 2 + int(rng.integers(0, 6))) for _ in range(12)]
        requests.append(request_of(f"q{number}", ("art", "law")[number % 2], early + late))
    found = take(make_lake(requests), "prefix_similarity", step=4, longest=16, draws=19)
    short, *_, long = found.to_dicts()
    assert short["difference_p"] > 0.1
    assert long["difference_p"] == 2 / 20
    choices = arrays_of(requests)
    domains = np.array([request.domain for request in requests])
    drawn = []
    for _ in range(60):
        names = dict(zip([r.request_id for r in requests], rng.permutation(domains), strict=True))
        choices.domain = np.array([names[one] for one in choices.request])
        drawn.append(of_pairs(choices, choices.ids[3], "prompt", 16)[1:])
    for place, value in enumerate(("within_domain", "across_domains")):
        means = [one[place] for one in drawn]
        spread = np.std(means) / 19**0.5
        assert long[f"{value}_chance"] == pytest.approx(np.mean(means), abs=4 * spread)


def test_copies_of_a_request_are_no_pairs(make_lake, request_of, take):
    """Two requests without a common expert: drawn anew, copies of one are not compared."""
    q = request_of("q", "law", [token(0, 1)] * 2)
    r = request_of("r", "law", [token(2, 3)] * 2)
    found = take(make_lake([q, r]), "prefix_similarity", step=2, draws=9)
    (row,) = found.to_dicts()
    for name in ("within_domain", "within_domain_low", "within_domain_high"):
        assert row[name] == pytest.approx(0, abs=1e-12)
