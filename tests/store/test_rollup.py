from tests.store.conftest import make_trace
from tracer.store.rollup import DomainUsage, phase_slices, request_usage


def test_usage_counts_and_sums_by_phase_and_layer(trace):
    """Tokens 0 and 1 are prompt; layer 0 chose 3, 1 then 1, 2: expert 1 twice, .25 + .5."""
    rows = {
        (row.phase, row.layer_id): (
            row.num_tokens,
            row.expert_ids.tolist(),
            row.num_choices.tolist(),
            row.weight_sum.tolist(),
        )
        for row in request_usage(trace, num_experts=4)
    }
    assert rows == {
        ("prompt", 0): (2, [1, 2, 3], [2, 1, 1], [0.75, 0.5, 0.5]),
        ("prompt", 2): (2, [0, 2], [2, 2], [1.25, 0.75]),
        ("last-prompt", 0): (1, [1, 2], [1, 1], [0.5, 0.5]),
        ("last-prompt", 2): (1, [0, 2], [1, 1], [0.75, 0.25]),
        ("generated", 0): (1, [0, 3], [1, 1], [0.125, 0.75]),
        ("generated", 2): (1, [0, 1], [1, 1], [0.5, 0.25]),
    }


def test_domain_usage_adds_requests_of_a_domain():
    usage = DomainUsage((0, 2), num_experts=4)
    usage.add(make_trace("a"))
    usage.add(make_trace("b"))
    usage.add(make_trace("c", domain="art"))
    law = usage.cells["law", "prompt"]
    assert law["num_choices"].tolist() == [0, 4, 2, 2, 4, 0, 4, 0]
    assert law["weight_sum"].tolist() == [0, 1.5, 1, 1, 2.5, 0, 1.5, 0]
    assert law["weight_sq_sum"][1] == 2 * (0.25**2 + 0.5**2)
    assert (law["weight_min"][1], law["weight_max"][1]) == (0.25, 0.5)
    assert usage.cells["art", "prompt"]["num_choices"].tolist() == [0, 2, 1, 1, 2, 0, 2, 0]


def test_a_request_of_one_token_has_a_last_prompt_token():
    one = make_trace(prompt=1, choices={0: [[(0, 1.0), (1, 0.0)]], 2: [[(0, 1.0), (1, 0.0)]]})
    assert [phase for phase, _ in phase_slices(one)] == ["prompt", "last-prompt"]


def test_without_the_last_prompt_token_there_is_no_such_scope(trace):
    """The prompt's last token was cut away: nothing stands in for it."""
    longer = make_trace(prompt=4)
    assert [phase for phase, _ in phase_slices(longer)] == ["prompt"]
