"""depth_collapse: by hand, beside NumPy over pairs, and against renamed experts."""

import math
from itertools import combinations

import numpy as np
import pytest

from tests.analysis.measures.conftest import LAYERS, NUM_EXPERTS, arrays_of, usage_of
from tracer.analysis.measures.inputs import Asked, make_inputs
from tracer.analysis.measures.nulls import NULLS
from tracer.analysis.measures.redraw import Redraw
from tracer.analysis.sql import connect


def test_by_hand(make_lake, request_of, take):
    """Prompts of law and art: layer 1 {0, 1} and {2, 3}, cosine 0; layer 4 {0, 1} and {0, 2}, 1/2.

    A second law prompt, with {0, 1} everywhere, does not change the means, and no pair within law
    is looked at. By chance, of E = 4: (2 / sqrt 2)^2 / 4 = 1/2. Law alone generates: no pair.
    """
    law = {1: {0: 0.6, 1: 0.4}, 4: {0: 0.6, 1: 0.4}}
    art = {1: {2: 0.6, 3: 0.4}, 4: {0: 0.6, 2: 0.4}}
    lake = make_lake(
        [
            request_of("a", "law", [law]),
            request_of("b", "law", [law], [law]),
            request_of("c", "art", [art]),
        ],
        num_experts=4,
    )
    half = pytest.approx(1 / 2)
    found = take(lake, "depth_collapse")
    assert found.rows() == [
        ("generated", 1, 1, None, None, None),
        ("generated", 4, 1, None, None, None),
        ("prompt", 1, 3, 0.0, half, 0.0),
        ("prompt", 4, 3, half, half, half),
    ]
    generated = take(lake, "depth_collapse", tokens="generated")  # request b alone has some
    assert generated["num_requests"].to_list() == [1, 1, 1, 1]


def between(usage):
    """(mean cosine of pairs of two domains, its mean under renamed experts) by layer."""
    rows = []
    for layer in LAYERS:
        cosines, even = [], []
        for one, two in combinations(range(len(usage.domain)), 2):
            if usage.domain[one] != usage.domain[two]:
                left, right = usage.counts[layer][one], usage.counts[layer][two]
                length = math.sqrt((left @ left) * (right @ right))
                cosines.append(left @ right / length)
                even.append(left.sum() * right.sum() / length / NUM_EXPERTS)
        rows.append((np.mean(cosines), np.mean(even)))
    return np.array(rows)


def test_beside_numpy(made, take):
    lake, requests = made
    found = take(lake, "depth_collapse")
    assert found["layer_id"].to_list() == [*LAYERS, *LAYERS]
    for phase in ("generated", "prompt"):
        usage = usage_of(arrays_of(requests, phase))
        rows = found.filter(phase=phase)
        assert rows["num_requests"].to_list() == [len(usage.domain)] * len(LAYERS)
        expected = between(usage)
        columns = rows.select("similarity", "similarity_closed_form").to_numpy()
        np.testing.assert_allclose(columns, expected, rtol=0, atol=1e-12)
        rise = expected[:, 0] - expected[0, 0]
        np.testing.assert_allclose(rows["since_first_layer"], rise, rtol=0, atol=1e-12)


def test_renamed_experts_are_alike_as_the_closed_form_says(planted, take):
    """The spread of a draw is taken from 100 renamings in NumPy: one of experts for each domain."""
    lake, requests = planted
    found = take(lake, "depth_collapse", draws=39)
    rng = np.random.default_rng(0)
    for phase in ("generated", "prompt"):
        usage = usage_of(arrays_of(requests, phase))
        simulated = []
        for _ in range(100):
            drawn = usage.some(slice(None))
            for layer, counts in usage.counts.items():
                drawn.counts[layer] = counts.copy()
                for name in np.unique(usage.domain):
                    mine = usage.domain == name
                    drawn.counts[layer][mine] = counts[mine][:, rng.permutation(NUM_EXPERTS)]
            simulated.append(between(drawn)[:, 0])
        rows = found.filter(phase=phase)
        error = 4 * np.std(simulated, axis=0) / math.sqrt(39)
        off = np.abs(rows["similarity_chance"] - rows["similarity_closed_form"]).to_numpy()
        assert (off <= error).all()


def test_a_collapse_is_told_from_chance(make_lake, request_of, take):
    """Four domains with two experts each of their own in layer 1, and the same two in layer 4.

    Of 8 experts, four renamed pairs are all apart in 0.4 % of draws and all the same in 0.005 %;
    either way 19 draws leave p = 2 / 20. By chance the cosine is 2 * 2 / 8 / 2.
    """
    requests = [
        request_of(
            f"q{n}",
            f"domain {n // 2}",
            [{1: {n // 2 * 2: 0.6, n // 2 * 2 + 1: 0.4}, 4: {0: 0.6, 1: 0.4}}],
        )
        for n in range(8)
    ]
    found = take(make_lake(requests), "depth_collapse", draws=19)
    assert found["similarity"].to_list() == pytest.approx([0, 1])
    assert found["similarity_closed_form"].to_list() == pytest.approx([1 / 4, 1 / 4])
    assert found["similarity_p"].to_list() == pytest.approx([0.1, 0.1])
    assert found["since_first_layer"].to_list() == pytest.approx([0, 1])
    assert found["since_first_layer_p"][1] == pytest.approx(0.1)


def test_the_null_renames_experts_in_both_phases_alike(made):
    """Of a domain and layer, the columns of choices by request and phase change places, no more.

    Each domain and layer has an order of its own."""
    lake, requests = made
    con = connect(lake)
    make_inputs(con, ("phase_usage",), Asked(lake.run(), "all", {}), keep=True)
    names = sorted({request.request_id for request in requests})

    def columns():
        """{(domain, layer): [columns, in the order of experts]}."""
        found = {}
        for row in con.sql("from phase_usage").pl().iter_rows(named=True):
            shape = NUM_EXPERTS, len(names), 2
            cell = found.setdefault((row["domain"], row["layer_id"]), np.zeros(shape))
            place = row["expert_id"], names.index(row["request_id"]), row["phase"] == "prompt"
            cell[place[0], place[1], int(place[2])] = row["num_choices"]
        return {key: [column.tobytes() for column in cell] for key, cell in found.items()}

    recorded = columns()
    NULLS["experts"](Redraw(con), np.random.default_rng(0))
    drawn = columns()
    assert drawn.keys() == recorded.keys()
    orders = set()
    for key, cell in drawn.items():
        assert sorted(cell) == sorted(recorded[key])
        orders.add(tuple(recorded[key].index(column) for column in cell))
    assert len(orders) == len(recorded)
