"""template_tokens: by hand, and what is left without them."""

import pytest

from tests.analysis.measures.conftest import arrays_of
from tracer.analysis.measures.run import Settings, run_measure
from tracer.errors import InputError

TOKEN = {0: {0: 0.75, 1: 0.25}}
OTHER = {0: {2: 0.75, 3: 0.25}}


def request(request_of, name, token_ids, num_generated=0):
    """Tokens 1, 2 (start) and 8, 9 (end) choose 0 and 1, all others 2 and 3."""
    routed = [TOKEN if token_id in {1, 2, 8, 9} else OTHER for token_id in token_ids]
    split = len(token_ids) - num_generated
    last = [7] if num_generated else []
    return request_of(name, name, routed[:split], routed[split:], token_ids=[*token_ids, *last])


@pytest.fixture
def wrapped(make_lake, request_of):
    """1, 2, the prompt, 8, 9; the second also generates 2 and 9, which are no template there."""
    requests = [
        request(request_of, "a", [1, 2, 5, 8, 9]),
        request(request_of, "b", [1, 2, 6, 5, 8, 9, 2, 9], num_generated=2),
        request(request_of, "c", [1, 2, 4, 6, 6, 8, 9]),
    ]
    return make_lake(requests), requests


def test_by_hand(wrapped, take):
    assert take(wrapped[0], "template_tokens").rows() == [
        ("start", 0, 1, 3),
        ("start", 1, 2, 3),
        ("end", 0, 9, 3),
        ("end", 1, 8, 3),
    ]


def test_without_the_template(wrapped, take):
    """Left are 1, 2 and 3 prompt tokens, which choose 2 and 3, and 2 generated: 0 and 1."""
    lake, requests = wrapped
    for tokens, counts in (
        ("prompt", [0, 0, 6, 6]),
        ("all", [2, 2, 6, 6]),
        ("generated", [2, 2, 0, 0]),
    ):
        found = take(lake, "expert_load", tokens=tokens, exclude_template=True)
        assert found["num_choices"].to_list()[:4] == counts
    whole = take(lake, "expert_load")
    assert whole["num_choices"].sum() == arrays_of(requests).ids[0].size


def test_one_request_or_equal_prompts_have_no_template(make_lake, request_of, take):
    one = request(request_of, "a", [1, 2, 5])
    twin = request(request_of, "b", [1, 2, 5])
    for folder, requests in (("one", [one]), ("two", [one, twin])):
        lake = make_lake(requests, folder=folder)
        found = take(lake, "expert_load", exclude_template=True)
        assert found["num_choices"].sum() == 6 * len(requests)


def test_chance_and_intervals_leave_it_out_too(wrapped, take, copied):
    """A domain of one request has no interval but the percentiles of what ``copied`` repeats."""
    assert copied(["a"]) == [0]
    found = take(wrapped[0], "expert_load", tokens="prompt", exclude_template=True, draws=19)
    assert found["load_high"].to_list()[:4] == [0, 0, 0.5, 0.5]


def test_what_is_left_out_and_a_shared_last_token_are_told(wrapped):
    """All end in 9; two tokens begin and two end every prompt."""
    lake, _ = wrapped
    for settings, words in (
        (Settings(tokens="last-prompt", draws=0), "the last prompt token of run 'r1' is the same"),
        (Settings(exclude_template=True, draws=0), "the 2 tokens that begin and the 2 that end"),
    ):
        (note,) = run_measure(lake, "expert_load", settings=settings).notes
        assert words in note
    assert run_measure(lake, "expert_load", settings=Settings(draws=0)).notes == ()


def test_what_is_made_of_sums_cannot_leave_them_out(wrapped):
    lake, _ = wrapped
    settings = Settings(exclude_template=True, draws=0)
    for name, engine in (("prompt_predicts_generation", "duckdb"), ("expert_load", "polars")):
        with pytest.raises(InputError, match="hold the template's tokens"):
            run_measure(lake, name, settings=settings, engine=engine)
