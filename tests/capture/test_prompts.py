import pytest

from tracer.capture.prompts import fit_prompts, tokenize
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
