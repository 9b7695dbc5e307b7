"""Redrawn sums against plain loops over the same weights, and intervals against known errors."""

import math

import numpy as np
import pytest

from tracer.analysis.bootstrap import bootstrap_usage, percentile_interval, poisson_weights
from tracer.analysis.sql import connect, run_query
from tracer.errors import InputError


@pytest.fixture
def drawn(make_lake):
    """(bootstrap, its layers by id) of the requests of a lake made of them."""

    def draw(requests, *, draws=50, seed=3, tokens="all", domains=None, **lake):
        made = make_lake(requests, **lake)
        con = connect(made)
        found = bootstrap_usage(
            con, made.run(), draws=draws, seed=seed, tokens=tokens, domains=domains
        )
        return found, {layer.layer_id: layer for layer in found.layers()}

    return draw


@pytest.fixture
def three(request_of):
    """law: q2 with a token of {1: .5, 2: .25} and a generated one of {1: .25, 3: .125}; q0 with one
    token of {2: 1, 3: 0}. art: q1 with one token of {0: .75, 1: .25}."""
    return [
        request_of("q2", "law", [{4: {1: 0.5, 2: 0.25}}], [{4: {1: 0.25, 3: 0.125}}]),
        request_of("q1", "art", [{4: {0: 0.75, 1: 0.25}}]),
        request_of("q0", "law", [{4: {2: 1.0, 3: 0.0}}]),
    ]


def test_a_draw_counts_each_request_as_often_as_its_weight_says(drawn, three):
    """Weights are those of q0, q1, q2, in this order whatever their domains."""
    found, layers = drawn(three)
    assert (found.domains, found.num_requests.tolist()) == (("art", "law"), [1, 2])
    layer = layers[4]
    assert layer.recorded.num_choices.tolist() == [
        [1, 1, 0, 0, 0, 0, 0, 0],
        [0, 2, 2, 2, 0, 0, 0, 0],
    ]
    assert layer.recorded.weight_sum[:, :4].tolist() == [[0.75, 0.25, 0, 0], [0, 0.75, 1.25, 0.125]]
    weights = poisson_weights(3, 50, 3).astype(float)
    assert len({tuple(column) for column in weights.T}) > 10
    for draw, (q0, q1, q2) in enumerate(weights.T):
        choices = [[q1, q1, 0, 0], [0, 2 * q2, q0 + q2, q0 + q2]]
        sums = [[0.75 * q1, 0.25 * q1, 0, 0], [0, 0.75 * q2, q0 + 0.25 * q2, 0.125 * q2]]
        assert layer.drawn.num_choices[draw, :, :4].tolist() == choices
        assert layer.drawn.weight_sum[draw, :, :4].tolist() == sums
    assert not layer.drawn.num_choices[..., 4:].any()


def test_shares_are_per_token_and_not_a_number_without_one(drawn, three):
    """The one request of art is drawn with the same share, or not drawn at all."""
    _, layers = drawn(three)
    layer = layers[4]
    assert layer.recorded.eci(2)[:, :4].tolist() == [
        [0.75, 0.25, 0, 0],
        [0, 0.25, 1.25 / 3, 0.125 / 3],
    ]
    shares = layer.drawn.eci(2)[:, 0, 0]
    there = poisson_weights(3, 50, 3)[1] > 0
    assert 0 < there.sum() < 50
    assert set(shares[there].tolist()) == {0.75}
    assert np.isnan(shares[~there]).all()
    low, high = percentile_interval(layer.drawn.eci(2), 0.9)
    assert (low[0, 0], high[0, 0]) == (0.75, 0.75)


@pytest.mark.parametrize(
    ("tokens", "choices"),
    [("prompt", 4), ("last-prompt", 4), ("generated", 2), ("all", 6)],
)
def test_a_scope_takes_its_tokens_only(drawn, three, tokens, choices):
    found, layers = drawn(three, tokens=tokens)
    law = found.domains.index("law")
    assert layers[4].recorded.num_choices[law].sum() == choices
    assert found.domains == (("law",) if tokens == "generated" else ("art", "law"))


def test_requests_of_renamed_domains_are_summed_together(drawn, three):
    found, layers = drawn(three, domains={"art": "law"})
    assert (found.domains, found.num_requests.tolist()) == (("law",), [3])
    assert layers[4].recorded.num_choices[0, :4].tolist() == [1, 3, 2, 2]


def test_what_is_not_complete_is_not_drawn(drawn, three, request_of):
    aborted = request_of("q4", "law", [{4: {6: 1.0, 7: 0.0}}], status="aborted")
    found, layers = drawn([*three, aborted], uncommitted=[request_of("q5", "new", three[1].prompt)])
    assert (found.domains, found.num_requests.tolist()) == (("art", "law"), [1, 2])
    assert not layers[4].recorded.num_choices[:, 4:].any()


def test_nothing_recorded_is_no_domain(drawn, three):
    found, layers = drawn(three[:0])
    assert (found.domains, found.num_requests.tolist(), layers) == ((), [], {})
    found, layers = drawn(three[1:2], tokens="generated", folder="other")
    assert found.domains == ()
    assert layers[4].drawn.weight_sum.shape == (50, 0, 8)


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


@pytest.mark.parametrize("rows", [1, 7, 8192])
def test_batches_of_any_size_give_the_sums_of_a_loop(drawn, request_of, monkeypatch, rows):
    """A request's phases may lie in two batches, those of a domain in many."""
    monkeypatch.setattr("tracer.analysis.bootstrap._ROWS", rows)
    requests = random_requests(request_of, 60)
    found, layers = drawn(requests, draws=9)
    weights = poisson_weights(60, 9, 3)
    for layer_id, layer in layers.items():
        counts, sums = np.zeros((9, 3, 8)), np.zeros((9, 3, 8))
        for number, request in enumerate(requests):
            domain = found.domains.index(request.domain)
            for token in [*request.prompt, *request.generated]:
                for expert, weight in token[layer_id].items():
                    counts[:, domain, expert] += weights[number]
                    sums[:, domain, expert] += weights[number] * weight
        assert np.array_equal(layer.drawn.num_choices, counts)
        assert layer.drawn.weight_sum == pytest.approx(sums, rel=1e-6)


def test_recorded_shares_are_those_of_eci(make_lake, request_of):
    made = make_lake(random_requests(request_of, 40))
    con = connect(made)
    found = bootstrap_usage(con, made.run(), draws=1, seed=0, tokens="prompt")
    shares = {layer.layer_id: layer.recorded.eci(found.top_k) for layer in found.layers()}
    rows = run_query(con, "eci", run_id="r1", tokens="prompt").rows()
    assert len(rows) > 40
    for layer_id, domain, expert, _, _, eci in rows:
        share = shares[layer_id][found.domains.index(domain), expert]
        assert share == pytest.approx(eci, rel=1e-12)


def test_a_seed_gives_the_same_draws_and_another_one_others(make_lake, request_of):
    made = make_lake(random_requests(request_of, 30))
    con = connect(made)

    def draw(seed):
        found = bootstrap_usage(con, made.run(), draws=20, seed=seed, tokens="all")
        assert (found.seed, found.draws) == (seed, 20)
        first, again = list(found.layers()), list(found.layers())
        for one, other in zip(first, again, strict=True):
            assert np.array_equal(one.drawn.weight_sum, other.drawn.weight_sum)
        return first[0].drawn.weight_sum

    assert np.array_equal(draw(1), draw(1))
    assert not np.array_equal(draw(1), draw(2))


def test_errors_are_those_of_the_ratio_of_independent_requests(drawn, request_of):
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
    _, layers = drawn(requests, draws=4000, top_k=1)
    shares = layers[0].drawn.eci(1)[:, 0, 0]
    assert layers[0].recorded.eci(1)[0, 0] == pytest.approx(share, rel=1e-9)
    assert shares.std() == pytest.approx(error, rel=0.05)
    assert shares.mean() == pytest.approx(share, abs=0.1 * error)
    low, high = percentile_interval(shares, 0.95)
    assert (high - low) / error == pytest.approx(2 * 1.96, rel=0.06)


def test_weights_are_poisson_numbers():
    """Of 200,000: shares exp(-1) / n! within four standard errors, neighbours uncorrelated."""
    weights = poisson_weights(2000, 100, 11)
    assert (weights.shape, weights.dtype) == ((2000, 100), np.uint8)
    for count in range(6):
        chance = math.exp(-1) / math.factorial(count)
        error = math.sqrt(chance * (1 - chance) / weights.size)
        assert abs((weights == count).mean() - chance) < 4 * error
    assert weights.mean() == pytest.approx(1, abs=0.01)
    assert weights.var() == pytest.approx(1, abs=0.02)
    rows, columns = weights - weights.mean(), weights.astype(float) - 1
    assert abs((rows[:-1] * rows[1:]).mean()) < 0.01
    assert abs((columns[:, :-1] * columns[:, 1:]).mean()) < 0.01


FIRST = [[3, 1, 1, 2, 1, 2], [2, 0, 0, 0, 0, 2], [2, 0, 1, 2, 0, 2], [0, 1, 2, 0, 0, 0]]


def test_weights_stay_what_they_were():
    """Of a seed, on any machine and any NumPy; drawn in parts, they are the same."""
    assert poisson_weights(4, 6, 7).tolist() == FIRST
    assert poisson_weights(1, 5, 7).tolist() == [FIRST[0][:5]]
    assert poisson_weights(0, 5, 7).shape == (0, 5)


def test_weights_drawn_in_parts_are_the_same(monkeypatch):
    whole = poisson_weights(30, 10, 1)
    monkeypatch.setattr("tracer.analysis.bootstrap._CHUNK", 32)
    assert np.array_equal(poisson_weights(30, 10, 1), whole)


def test_intervals_are_quantiles_without_what_is_missing():
    rng = np.random.default_rng(0)
    draws = rng.random((101, 4, 3))
    draws[rng.random(draws.shape) < 0.3] = np.nan
    draws[:, 3, 2] = np.nan
    draws[1:, 3, 1] = np.nan
    draws[0, 3, 1] = 0.25
    low, high = percentile_interval(draws, 0.9)
    assert low.shape == high.shape == (4, 3)
    for place in np.ndindex(4, 3):
        there = draws[:, *place][~np.isnan(draws[:, *place])]
        if place == (3, 2):
            assert np.isnan([low[place], high[place]]).all()
        else:
            expected = np.quantile(there, [0.05, 0.95])
            assert [low[place], high[place]] == pytest.approx(expected, rel=1e-12)
    assert (low[3, 1], high[3, 1]) == (0.25, 0.25)


@pytest.mark.parametrize("level", [0, 1, -0.5, math.nan])
def test_a_level_is_a_share(level):
    with pytest.raises(InputError, match="is not a share of draws"):
        percentile_interval(np.zeros((2, 1)), level)


@pytest.mark.parametrize(("draws", "seed"), [(0, 1), (5, -1)])
def test_draws_that_cannot_be_made_are_refused(drawn, three, draws, seed):
    with pytest.raises(InputError, match="cannot be made"):
        drawn(three, draws=draws, seed=seed)
