"""prompt_predicts_generation: by hand, beside NumPy, and against exchanged generated parts."""

import math
from dataclasses import replace

import numpy as np
import pytest

from tests.analysis.measures.conftest import LAYERS, arrays_of, assert_mean_of, usage_of
from tracer.analysis.measures.inputs import Asked, make_inputs
from tracer.analysis.measures.nulls import NULLS
from tracer.analysis.measures.redraw import Redraw
from tracer.analysis.sql import connect


def pair(one, two):
    return [{3: {one: 0.6, two: 0.4}}]


def test_by_hand(make_lake, request_of, take):
    """Prompts a {0, 1}, b {0, 1}, c {0, 2}, d {2, 3}: ab 1, ac bc cd 1/2, ad bd 0.

    Generated a {0, 1}, b {0, 2}, c {2, 3}, d {2, 3}: cd 1, ab bc bd 1/2, ac ad 0. Ranks, in the
    order ab ac ad bc bd cd: 6 4 1.5 4 1.5 4 and 4 1.5 1.5 4 4 6. Less 3.5: products 1.25, -1, 4,
    .25, -1, 1.25 make 4.75; squares 6.25, .25, 4, .25, 4, .25 and .25, 4, 4, .25, .25, 6.25 make
    15 and 15. Request e, which generates nothing, is left out.
    """
    requests = [
        request_of("a", "law", pair(0, 1), pair(0, 1)),
        request_of("b", "law", pair(0, 1), pair(0, 2)),
        request_of("c", "art", pair(0, 2), pair(2, 3)),
        request_of("d", "art", pair(2, 3), pair(2, 3)),
        request_of("e", "art", pair(2, 3)),
    ]
    lake = make_lake(requests, num_experts=4)
    expected = [(3, 4, 6, pytest.approx(4.75 / 15))]
    assert take(lake, "prompt_predicts_generation").rows() == expected
    assert take(lake, "prompt_predicts_generation", tokens="last-prompt").rows() == expected


def test_one_pair_has_no_correlation(make_lake, request_of, take):
    requests = [request_of(name, "law", pair(0, 1), pair(0, 2)) for name in "ab"]
    found = take(make_lake(requests), "prompt_predicts_generation")
    assert found.rows() == [(3, 2, 1, None)]


def cosines(counts):
    unit = counts / np.sqrt((counts**2).sum(1, keepdims=True))
    return np.round(unit @ unit.T, 12)


def spearman(one, two, origin=None):
    """Of the upper triangles of two matrices, through ranks by counting; equal origins left out."""
    origin = np.arange(len(one)) if origin is None else origin
    pairs = np.triu(origin[:, None] != origin, 1)
    ranks = []
    for matrix in (one, two):
        value = matrix[pairs]
        smaller = (value[:, None] > value).sum(1)
        ranks.append(smaller + ((value[:, None] == value).sum(1) + 1) / 2)
    return np.corrcoef(ranks)[0, 1]


def matrices(requests):
    """(prompt cosines, generated cosines) by layer, of requests with both phases."""
    prompt, generated = (usage_of(arrays_of(requests, phase)) for phase in ("prompt", "generated"))
    _, left, right = np.intersect1d(prompt.request, generated.request, return_indices=True)
    return {
        layer: (cosines(prompt.counts[layer][left]), cosines(generated.counts[layer][right]))
        for layer in LAYERS
    }


def test_beside_numpy(made, take):
    lake, requests = made
    found = take(lake, "prompt_predicts_generation")
    for row, (one, two) in zip(found.rows(), matrices(requests).values(), strict=True):
        assert row[1:3] == (len(one), math.comb(len(one), 2))
        assert row[3] == pytest.approx(spearman(one, two), abs=1e-12)


def test_exchanged_parts_leave_no_correlation(planted, take):
    """The mean by chance is 0; the plant, alike in both phases by domain, lies beyond chance."""
    lake, requests = planted
    found = take(lake, "prompt_predicts_generation", draws=29)
    rng = np.random.default_rng(0)
    recorded = matrices(requests)
    simulated = []
    for _ in range(300):
        drawn = []
        for one, two in recorded.values():
            order = rng.permutation(len(one))
            drawn.append(spearman(one, two[order][:, order]))
        simulated.append(drawn)
    simulated = np.array(simulated)
    assert (np.abs(simulated.mean(0)) <= 4 * simulated.std(0) / math.sqrt(300)).all()
    assert_mean_of(found["correlation_chance"], simulated, 29)
    assert (found["correlation"] > found["correlation_chance_high"]).any()
    assert (found["correlation_high"] <= 1).all()


def test_copies_of_a_request_are_no_pair(planted, take, copied):
    """Pairs of equal origin are left out in NumPy too. The interval of one draw is its value.

    Copies are alike in both phases: taken for pairs, they would raise the correlation."""
    lake, requests = planted
    requests = sorted(requests, key=lambda request: request.request_id)
    places = copied([request.domain for request in requests])
    some = [replace(requests[n], request_id=f"{i:02}") for i, n in enumerate(places)]
    both = [n for n in places if requests[n].generated]
    found = take(lake, "prompt_predicts_generation", draws=1)["correlation_low"].to_list()
    drawn = matrices(some).values()
    expected = [spearman(one, two, np.array(both)) for one, two in drawn]
    assert found == pytest.approx(expected, abs=1e-12)
    assert all(low < spearman(*pair) for low, pair in zip(found, drawn, strict=True))


def test_the_null_moves_whole_generated_parts_and_nothing_else(made):
    """Prompts stay, and each generated part, with all its layers, goes to one other request.

    Together the parts are the recorded ones; requests without one get none."""
    lake, requests = made
    con = connect(lake)
    reads = ("phase_usage",)
    make_inputs(con, reads, Asked(lake.run(), "all", {}), keep=True)

    def table():
        found = con.sql("from phase_usage_entries").pl()
        return found.sort("origin", "phase", "layer_id", "expert_id")

    recorded = table()
    redraw = Redraw(con)
    NULLS["phases"](redraw, np.random.default_rng(0))
    drawn = table()
    prompts = recorded.filter(phase="prompt")
    assert drawn.filter(phase="prompt").equals(prompts)

    def parts(frame):
        found = frame.filter(phase="generated").partition_by("origin", as_dict=True)
        return {name: part.drop("origin").rows() for (name,), part in found.items()}

    before, after = parts(recorded), parts(drawn)
    assert sorted(before.values()) == sorted(after.values())
    assert set(before) == set(after) == {r.request_id for r in requests if r.generated}
    assert sum(before[name] != after[name] for name in before) > len(before) / 2
    redraw.restore()
    again = table()
    assert again.equals(recorded)
