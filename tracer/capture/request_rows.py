"""Rows of `requests`, for every way a request can end."""

from typing import Any

from tracer.capture.prompts import Prompt

__all__ = ["CUT_SHORT", "aborted_row", "finished_row", "skipped_row", "was_cut_short"]

# Finish reasons of requests that vLLM gave up.
CUT_SHORT = ("abort", "error")


def was_cut_short(output: Any) -> bool:
    """Whether vLLM gave this finished output up, so that its rows count for nothing."""
    return output.outputs[0].finish_reason in CUT_SHORT


def finished_row(prompt: Prompt, output: Any, *, store_text: bool) -> dict[str, Any]:
    """Row of a request vLLM finished; ``output`` is its ``RequestOutput``."""
    completion = output.outputs[0]
    return {
        **_row(prompt, store_text=store_text),
        "status": "complete" if prompt.row.capture else "uncaptured",
        "num_generated_tokens": len(completion.token_ids),
        "cached_prefix_tokens": output.num_cached_tokens or 0,
        "finish_reason": completion.finish_reason,
        "output_text": completion.text if store_text else None,
    }


def aborted_row(prompt: Prompt, output: Any | None, *, store_text: bool) -> dict[str, Any]:
    """Row of a request that was given up; without ``output`` it vanished from the engine."""
    completion = output.outputs[0] if output is not None else None
    return {
        **_row(prompt, store_text=store_text),
        "status": "aborted",
        "num_generated_tokens": len(completion.token_ids) if completion else 0,
        "cached_prefix_tokens": 0,
        "finish_reason": completion.finish_reason if completion else "abort",
        "output_text": None,
    }


def skipped_row(prompt: Prompt, *, store_text: bool) -> dict[str, Any]:
    """Row of a prompt the model has no room for."""
    return {
        **_row(prompt, store_text=store_text),
        "status": "skipped",
        "num_generated_tokens": 0,
        "cached_prefix_tokens": 0,
        "finish_reason": "too_long",
        "output_text": None,
    }


def _row(prompt: Prompt, *, store_text: bool) -> dict[str, Any]:
    labels = dict(prompt.row.labels)
    if prompt.truncated_from is not None:
        labels["truncated_from"] = str(prompt.truncated_from)
    return {
        "request_id": prompt.request_id,
        "sample_index": prompt.sample_index,
        "row_id": prompt.row.row_id,
        "domain": prompt.row.domain,
        "labels": labels,
        "num_prompt_tokens": len(prompt.token_ids),
        "prompt_digest": prompt.digest,
        "prompt_text": prompt.text if store_text else None,
    }
