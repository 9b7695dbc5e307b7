import numpy as np

from tests.store.conftest import make_rows, together
from tracer.store.rollup import PHASES, Rollup


def usage(rows, num_experts=4):
    """(request, phase, layer) -> tokens, experts, counts, sums, as `usage` gets them."""
    rollup = Rollup(rows, num_experts)
    found = {}
    for layer, choices in zip(rows.layer_ids, rows.choices(num_experts), strict=True):
        part = rollup.add(*choices)
        ends = np.cumsum(part.lengths).tolist()
        for (request, phase, tokens), end, length in zip(
            rollup.groups.tolist(), ends, part.lengths.tolist(), strict=True
        ):
            at = slice(end - length, end)
            key = (rows.requests[request].request_id, PHASES[phase], layer)
            assert key not in found
            found[key] = (
                tokens,
                part.expert_ids[at].tolist(),
                part.num_choices[at].tolist(),
                part.weight_sum[at].tolist(),
            )
    return found


def domain_usage(rows, num_experts=4):
    """(domain, phase, layer, expert) -> count, sum, sum of squares, least, largest."""
    rollup = Rollup(rows, num_experts)
    for choices in rows.choices(num_experts):
        rollup.add(*choices)
    part = rollup.by_domain()
    cells = np.repeat(np.arange(part.lengths.size), part.lengths.ravel())
    keys = zip(*np.unravel_index(cells, part.lengths.shape), part.expert_ids.tolist(), strict=True)
    sums = (part.num_choices, part.weight_sum, part.weight_sq_sum, part.weight_min, part.weight_max)
    found = {}
    for (layer, domain, phase, expert), *value in zip(
        keys, *(column.tolist() for column in sums), strict=True
    ):
        key = (rollup.domains[domain], PHASES[phase], rows.layer_ids[layer], expert)
        assert key not in found
        found[key] = tuple(value)
    return found


def phases(rows):
    return [PHASES[phase] for phase in Rollup(rows, 4).groups[:, 1]]


# Tokens 0 and 1 are prompt; layer 0 chose 3, 1 then 1, 2: expert 1 twice, .25 + .5.
EXPECTED = {
    ("prompt", 0): (2, [1, 2, 3], [2, 1, 1], [0.75, 0.5, 0.5]),
    ("prompt", 2): (2, [0, 2], [2, 2], [1.25, 0.75]),
    ("last-prompt", 0): (1, [1, 2], [1, 1], [0.5, 0.5]),
    ("last-prompt", 2): (1, [0, 2], [1, 1], [0.75, 0.25]),
    ("generated", 0): (1, [0, 3], [1, 1], [0.125, 0.75]),
    ("generated", 2): (1, [0, 1], [1, 1], [0.5, 0.25]),
}


def test_usage_counts_and_sums_by_request_phase_and_layer():
    """The second request has one more prompt token instead of a generated one."""
    longer = {
        ("prompt", 0): (3, [0, 1, 2, 3], [1, 2, 1, 2], [0.125, 0.75, 0.5, 1.25]),
        ("prompt", 2): (3, [0, 1, 2], [3, 1, 2], [1.75, 0.25, 0.75]),
        ("last-prompt", 0): (1, [0, 3], [1, 1], [0.125, 0.75]),
        ("last-prompt", 2): (1, [0, 1], [1, 1], [0.5, 0.25]),
    }
    expected = {("a", *key): value for key, value in EXPECTED.items()}
    expected |= {("b", *key): value for key, value in longer.items()}
    assert usage(together(make_rows("a"), make_rows("b", prompt=3))) == expected


def test_domain_usage_adds_requests_of_a_domain():
    rows = together(make_rows("a"), make_rows("c", domain="art"), make_rows("b"))
    found = domain_usage(rows)
    assert found["law", "prompt", 0, 1] == (4, 1.5, 2 * (0.25**2 + 0.5**2), 0.25, 0.5)
    assert found["art", "prompt", 0, 1] == (2, 0.75, 0.25**2 + 0.5**2, 0.25, 0.5)
    assert found["law", "last-prompt", 0, 1] == (2, 1.0, 0.5, 0.5, 0.5)
    assert found["law", "generated", 2, 0] == (2, 1.0, 0.5, 0.5, 0.5)
    prompt = {key[2:]: value[0] for key, value in found.items() if key[:2] == ("art", "prompt")}
    assert prompt == {(0, 1): 2, (0, 2): 1, (0, 3): 1, (2, 0): 2, (2, 2): 2}


def test_a_request_of_one_token_has_a_last_prompt_token():
    one = make_rows(prompt=1, choices={0: [[(0, 1.0), (1, 0.0)]], 2: [[(0, 1.0), (1, 0.0)]]})
    assert phases(one) == ["prompt", "last-prompt"]


def test_without_the_last_prompt_token_there_is_no_such_scope():
    """The prompt's last token was cut away: nothing stands in for it."""
    assert phases(make_rows(prompt=4)) == ["prompt"]


def test_negative_weights_have_the_right_bounds():
    """No cell begins at zero: the largest weight of expert 0 in the prompt is -0.5."""
    choices = {0: [[(0, -0.5), (1, -1.0)], [(0, -0.25), (1, -2.0)]], 2: [[(0, 1), (1, 1)]] * 2}
    rows = make_rows(prompt=1, choices=choices)
    found = domain_usage(rows)
    assert found["law", "prompt", 0, 0][3:] == (-0.5, -0.5)
    assert found["law", "generated", 0, 1] == (1, -2.0, 4.0, -2.0, -2.0)
