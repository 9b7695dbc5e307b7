import pytest

from tracer.capture.prompts import fit_prompts, request_ids, sampled, tokenize
from tracer.errors import InputError, PromptTooLongError
from tracer.records import DatasetRow


class Words:
    """A tokenizer: one token per word, its length; a BOS token 0 unless told not to."""

    chat_template = None

    def encode(self, text, *, add_special_tokens=True):
        return [0] * add_special_tokens + [len(word) for word in text.split()]


class Chat(Words):
    chat_template = "set"

    def apply_chat_template(self, messages, *, tokenize, add_generation_prompt):
        assert (tokenize, add_generation_prompt) == (False, True)
        return f"USER {messages[0]['content']} ASSISTANT"


ROWS = [DatasetRow("a", "one three"), DatasetRow("b", "some more words here")]


def test_plain_prompts_are_tokenised_as_they_are():
    prompts = list(tokenize(ROWS, Words(), chat_template=False))
    assert [(p.request_id, p.text, p.token_ids) for p in prompts] == [
        ("a", "one three", [0, 3, 5]),
        ("b", "some more words here", [0, 4, 4, 5, 4]),
    ]


def test_a_chat_template_brings_its_own_special_tokens():
    (first, _) = tokenize(ROWS, Chat(), chat_template=True)
    assert first.text == "USER one three ASSISTANT"
    assert first.token_ids == [4, 3, 5, 9]


def test_a_template_that_is_not_there_is_an_error():
    with pytest.raises(InputError, match="no chat template"):
        list(tokenize(ROWS, Words(), chat_template=True))


def test_a_prompt_must_leave_room_for_a_generated_token():
    """b has 5 tokens: it fits a length of 6, not of 5."""
    prompts = list(tokenize(ROWS, Words(), chat_template=False))
    assert fit_prompts(prompts, 6, "error") == (prompts, [])
    with pytest.raises(PromptTooLongError, match=r"1 prompt longer .* row 'b' with 5 tokens .*4"):
        fit_prompts(prompts, 5, "error")
    assert fit_prompts(prompts, 5, "skip") == (prompts[:1], prompts[1:])


def test_truncation_keeps_the_end_and_says_so():
    prompts = list(tokenize(ROWS, Words(), chat_template=False))
    (kept, cut), skipped = fit_prompts(prompts, 4, "truncate")
    assert skipped == []
    assert (kept, kept.truncated_from) == (prompts[0], None)
    assert (cut.token_ids, cut.truncated_from) == ([4, 5, 4], 5)


def test_samples_of_a_row_are_requests_of_their_own():
    prompts = list(tokenize(ROWS, Words(), chat_template=False))
    requests = sampled(prompts, 3)
    assert [(p.request_id, p.row.row_id, p.sample_index) for p in requests] == [
        ("a", "a", 0), ("a#1", "a", 1), ("a#2", "a", 2),
        ("b", "b", 0), ("b#1", "b", 1), ("b#2", "b", 2),
    ]  # fmt: skip
    assert [p.token_ids for p in requests[:3]] == [[0, 3, 5]] * 3
    assert sampled(prompts, 1) == prompts


def test_a_row_called_like_a_sample_of_another_is_refused():
    """With 3 samples row a becomes a, a#1 and a#2; a#3 and b#1#1 are free."""
    rows = [DatasetRow("a", "x"), DatasetRow("a#3", "x"), DatasetRow("b#1", "x")]
    names = request_ids(rows, 3)
    assert len(set(names)) == 9
    prompts = tokenize(rows, Words(), chat_template=False)
    assert names == [p.request_id for p in sampled(prompts, 3)]
    with pytest.raises(InputError, match="row 'a#3' has the name that sample 3 of row 'a'"):
        request_ids(rows, 4)
    assert request_ids(rows, 1) == ["a", "a#3", "b#1"]


def test_too_long_rows_are_counted_once_whatever_their_samples():
    prompts = sampled(list(tokenize(ROWS, Words(), chat_template=False)), 3)
    with pytest.raises(PromptTooLongError, match="1 prompt longer"):
        fit_prompts(prompts, 5, "error")
    fitting, skipped = fit_prompts(prompts, 5, "skip")
    assert [p.request_id for p in fitting] == ["a", "a#1", "a#2"]
    assert [p.request_id for p in skipped] == ["b", "b#1", "b#2"]
