"""Small hand-made traces."""

import numpy as np
import pytest

from tracer.store.traces import RequestTrace


def make_trace(request_id="q", domain="law", prompt=2, choices=None, layers=(0, 2)):
    """A trace of three forwarded tokens in two layers, two choices each."""
    choices = choices or {
        0: [[(3, 0.5), (1, 0.25)], [(1, 0.5), (2, 0.5)], [(0, 0.125), (3, 0.75)]],
        2: [[(0, 0.5), (2, 0.5)], [(0, 0.75), (2, 0.25)], [(0, 0.5), (1, 0.25)]],
    }
    ids = [[[e for e, _ in token] for token in choices[layer]] for layer in layers]
    weights = [[[w for _, w in token] for token in choices[layer]] for layer in layers]
    count = len(choices[layers[0]])
    return RequestTrace(
        request_id,
        domain,
        prompt,
        layers,
        np.arange(10, 11 + count, dtype=np.int32),
        np.arange(count, dtype=np.int32),
        np.array(ids, dtype=np.int16),
        np.array(weights, dtype=np.float32),
    )


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
def trace():
    return make_trace()
