"""expert_transitions and its null: by hand, beside NumPy, and on paths that are planted."""

import itertools

import numpy as np
import pytest

from tests.analysis.measures.conftest import LAYERS, NUM_EXPERTS, arrays_of
from tracer.analysis.measures.inputs import Asked, make_inputs
from tracer.analysis.measures.nulls import NULLS
from tracer.analysis.measures.redraw import Redraw
from tracer.analysis.sql import connect


def token(*firsts):
    """First choices of layers 1, 4 and 6, each before expert 3."""
    return {layer: {e: 0.6, 3: 0.4} for layer, e in zip((1, 4, 6), firsts, strict=False)}


def test_by_hand(make_lake, request_of, take):
    """Layers 1 and 4 of four experts: 0 -> 1, 0 -> 2, 1 -> 1, 0 -> 1.

    Of 0's three tokens two go to 1, which takes 3 of all 4: lift (2/3) / (3/4).
    """
    tokens = [token(0, 1), token(0, 2), token(1, 1), token(0, 1)]
    lake = make_lake([request_of("q", "law", tokens)], num_experts=4)
    found = take(lake, "expert_transitions")
    assert found.height == 16
    assert set(found["layer_id"]) == {1}
    assert set(found["next_layer_id"]) == {4}
    third = pytest.approx(1 / 3)
    assert [row[2:] for row in found.rows()[:8]] == [
        (0, 0, 0, 0.0, 0.0, None),
        (0, 1, 2, pytest.approx(2 / 3), 0.75, pytest.approx(8 / 9)),
        (0, 2, 1, third, 0.25, pytest.approx(4 / 3)),
        (0, 3, 0, 0.0, 0.0, None),
        (1, 0, 0, 0.0, 0.0, None),
        (1, 1, 1, 1.0, 0.75, pytest.approx(4 / 3)),
        (1, 2, 0, 0.0, 0.25, 0.0),
        (1, 3, 0, 0.0, 0.0, None),
    ]
    assert found["share"][8:].null_count() == found["lift"][8:].null_count() == 8


@pytest.mark.parametrize("tokens", ["all", "generated", "last-prompt"])
def test_beside_numpy(made, take, tokens):
    lake, requests = made
    ids = arrays_of(requests, tokens).ids
    found = take(lake, "expert_transitions", tokens=tokens)
    assert found.height == 2 * NUM_EXPERTS**2
    for layer, following in itertools.pairwise(LAYERS):
        table = np.zeros((NUM_EXPERTS, NUM_EXPERTS))
        np.add.at(table, (ids[layer][:, 0], ids[following][:, 0]), 1)
        base = table.sum(axis=0) / table.sum()
        with np.errstate(invalid="ignore"):
            share = table / table.sum(axis=1, keepdims=True)
            lift = share / np.where(base > 0, base, np.nan)
        rows = found.filter(layer_id=layer, next_layer_id=following)
        assert rows["num_tokens"].to_list() == table.ravel().tolist()
        for name, values in (("share", share), ("lift", lift), ("base_share", base + 0 * table)):
            np.testing.assert_allclose(
                rows[name].fill_null(np.nan), values.ravel(), rtol=0, atol=1e-12
            )


def test_paths_are_told_from_what_requests_prefer(make_lake, request_of, take):
    """Request a goes by 0 or 1 at even odds from layer to layer and stays; b by 2 always.

    All lifts are high, b's too; but only a's path is more than its request's use: by chance its
    share is 1/2 where it stays.
    """
    rng = np.random.default_rng(3)
    a = request_of("a", "law", [token(*[int(rng.integers(0, 2))] * 2) for _ in range(30)])
    b = request_of("b", "law", [token(2, 2) for _ in range(30)])
    found = take(make_lake([a, b]), "expert_transitions", draws=19)
    kept = found.filter((found["expert_id"] == found["next_expert_id"]) & (found["expert_id"] < 3))
    assert kept["share"].to_list() == [1.0, 1.0, 1.0]
    assert kept["lift"].min() > 1.5
    # A single path is the same by chance, so that it cannot be tested.
    assert kept["share_p"].fill_nan(None).to_list() == [2 / 20, 2 / 20, None]
    # Of a single request, chance is the next layer's shares in it.
    shares = found.filter(expert_id=0)["base_share"][:2].to_numpy() * 2
    np.testing.assert_allclose(kept["share_chance"][:2], shares, atol=0.06)


def test_the_null_keeps_layers_and_requests_and_breaks_paths(make_lake, request_of):
    """In each layer a request and phase keeps its choices, at the same places in another order."""
    rng = np.random.default_rng(3)
    requests = [
        request_of(
            f"q{i}",
            "law",
            [token(*[int(rng.integers(0, 3))] * 3) for _ in range(12)],
            [token(*[int(rng.integers(4, 8))] * 3) for _ in range(12)],
        )
        for i in range(3)
    ]
    lake = make_lake(requests)
    con = connect(lake)
    make_inputs(con, ["routed_tokens"], Asked(lake.run(), "all", {}), keep=True)
    redraw = Redraw(con)
    keys = ["origin", "phase", "layer_id"]
    query = "select origin, phase, layer_id, position, expert_ids from routing_entries"
    before = con.sql(query).pl().sort(*keys, "position")
    NULLS["layers"](redraw, np.random.default_rng(0))
    after = con.sql(query).pl().sort(*keys, "position")
    assert after.select(*keys, "position").equals(before.select(*keys, "position"))
    assert not after.equals(before)
    assert (
        after.sort(*keys, "expert_ids")
        .drop("position")
        .equals(before.sort(*keys, "expert_ids").drop("position"))
    )
    same = after.group_by("origin", "position").n_unique()["expert_ids"]
    assert (same > 1).mean() > 0.5  # before, all three layers of a token agree
    assert set(before.group_by("origin", "position").n_unique()["expert_ids"]) == {1}
