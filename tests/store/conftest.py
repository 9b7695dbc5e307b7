"""Small hand-made shards."""

import dataclasses

import numpy as np
import pytest

from tracer.store.shard_rows import ShardRows, TracedRequest

CHOICES = {
    0: [[(3, 0.5), (1, 0.25)], [(1, 0.5), (2, 0.5)], [(0, 0.125), (3, 0.75)]],
    2: [[(0, 0.5), (2, 0.5)], [(0, 0.75), (2, 0.25)], [(0, 0.5), (1, 0.25)]],
}


def make_rows(request_id="q", domain="law", prompt=2, choices=None):
    """One request of three forwarded tokens in the layers 0 and 2, two choices each."""
    choices = choices or CHOICES
    count = len(choices[0])
    pairs = np.array([[choices[layer][token] for layer in choices] for token in range(count)])
    tokens = np.arange(10, 11 + count, dtype=np.int32)
    return ShardRows(
        tuple(choices),
        [TracedRequest(request_id, domain, prompt, tokens, count)],
        np.arange(count, dtype=np.int32),
        pairs[..., 0].astype(np.int16),
        pairs[..., 1].astype(np.float32),
    )


def together(*parts):
    """Several requests as one batch."""
    arrays = {
        field.name: np.concatenate([getattr(part, field.name) for part in parts])
        for field in dataclasses.fields(ShardRows)
        if isinstance(getattr(parts[0], field.name), np.ndarray)
    }
    requests = [request for part in parts for request in part.requests]
    return dataclasses.replace(parts[0], requests=requests, **arrays)


def request_row(request_id, **changes):
    return {
        "request_id": request_id,
        "sample_index": 0,
        "row_id": request_id,
        "domain": "law",
        "labels": {},
        "status": "complete",
        "num_prompt_tokens": 2,
        "num_generated_tokens": 2,
        "cached_prefix_tokens": 0,
        "finish_reason": "length",
        "prompt_digest": "",
        **changes,
    }


def run_row(run_id, **changes):
    return {
        "run_id": run_id,
        "model": "m",
        "engine": "test",
        "num_experts": 4,
        "top_k": 2,
        "moe_layers": [0, 2],
        "weight_precision": "f32",
        "tracer_version": "0",
        **changes,
    }


@pytest.fixture
def rows():
    return make_rows()
