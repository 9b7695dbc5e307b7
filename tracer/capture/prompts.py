"""From dataset rows to token ids: chat template, length rule, samples, request ids."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tracer.errors import InputError, PromptTooLongError, first_line
from tracer.records import DatasetRow

__all__ = ["Prompt", "fit_prompts", "load_tokenizer", "request_ids", "sampled", "tokenize"]


@dataclass(frozen=True, slots=True)
class Prompt:
    """One request to be.

    text: what was tokenised, template included; token_ids: what the engine gets
    truncated_from: length in tokens before it was cut, else None
    sample_index: which sample of the row this is, from 0
    """

    request_id: str
    row: DatasetRow
    text: str
    token_ids: Sequence[int]
    truncated_from: int | None = None
    sample_index: int = 0

    @property
    def digest(self) -> str:
        """Sha256 of the text, hex."""
        return hashlib.sha256(self.text.encode()).hexdigest()


def load_tokenizer(model_config: Any) -> Any:
    """The model's tokenizer, without loading the model.

    Raises:
        InputError: the model folder has none that loads.
    """
    from vllm.tokenizers import cached_tokenizer_from_config

    try:
        return cached_tokenizer_from_config(model_config)
    except Exception as error:
        raise InputError(f"the model's tokenizer does not load: {first_line(error)}") from error


def tokenize(
    rows: Iterable[DatasetRow], tokenizer: Any, *, chat_template: bool
) -> Iterator[Prompt]:
    """Token ids of every row, as vLLM would make them from the text.

    Args:
        rows: dataset rows.
        tokenizer: the model's tokenizer.
        chat_template: wrap each prompt as one user turn with the generation prompt.

    Raises:
        InputError: a template is asked for and the model has none, or a prompt has no tokens.
    """
    if chat_template and not getattr(tokenizer, "chat_template", None):
        raise InputError("the model has no chat template", "leave --chat-template off.")
    for row in rows:
        if chat_template:
            text = tokenizer.apply_chat_template(
                [{"role": "user", "content": row.prompt}],
                tokenize=False,
                add_generation_prompt=True,
            )
            token_ids = tokenizer.encode(text, add_special_tokens=False)
        else:
            text = row.prompt
            token_ids = tokenizer.encode(text)
        if not token_ids:
            raise InputError(f"the prompt of row {row.row_id!r} has no tokens")
        yield Prompt(row.row_id, row, text, token_ids)


def fit_prompts(
    prompts: Sequence[Prompt], max_model_len: int, too_long: str
) -> tuple[list[Prompt], list[Prompt]]:
    """Apply the length rule: a prompt must leave room for one generated token.

    Args:
        prompts: all prompts.
        max_model_len: most tokens of a sequence.
        too_long: error, skip, or truncate (keeps the end, where the question is).

    Returns:
        (prompts to run, prompts skipped).

    Raises:
        PromptTooLongError: ``too_long`` is error and one is.
    """
    limit = max_model_len - 1
    long = [prompt for prompt in prompts if len(prompt.token_ids) > limit]
    if long and too_long == "error":
        first = long[0]
        rows = {prompt.row.row_id for prompt in long}
        raise PromptTooLongError(first.row.row_id, len(first.token_ids), limit, len(rows))
    if too_long == "skip":
        return [p for p in prompts if len(p.token_ids) <= limit], long
    return [p if len(p.token_ids) <= limit else _truncated(p, limit) for p in prompts], []


def request_ids(rows: Iterable[DatasetRow], samples: int) -> list[str]:
    """Ids of all requests, in order: every row as often as it is to be sampled.

    Those of a row are ``row``, ``row#1``, ``row#2``, ...

    Raises:
        InputError: a row is called like a further sample of another one.
    """
    names = [row.row_id for row in rows]
    known = set(names)
    for name in names:
        for index in range(1, samples):
            if _sample(name, index) in known:
                raise InputError(
                    f"row {_sample(name, index)!r} has the name that sample {index} of row"
                    f" {name!r} would get",
                    "rename one of them, or leave --samples at 1.",
                )
    return [_sample(name, index) for name in names for index in range(samples)]


def sampled(prompts: Iterable[Prompt], samples: int) -> list[Prompt]:
    """Every prompt as often as it is to be sampled, named as ``request_ids`` says."""
    return [
        replace(prompt, request_id=_sample(prompt.request_id, index), sample_index=index)
        for prompt in prompts
        for index in range(samples)
    ]


def _sample(row_id: str, index: int) -> str:
    return f"{row_id}#{index}" if index else row_id


def _truncated(prompt: Prompt, limit: int) -> Prompt:
    length = len(prompt.token_ids)
    return replace(prompt, token_ids=list(prompt.token_ids[-limit:]), truncated_from=length)
