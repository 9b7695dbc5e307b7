"""One request's routing as arrays: what collectors hand over that do not batch yet."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tracer.store.shard_rows import ShardRows, TracedRequest

__all__ = ["RequestTrace", "batched"]


@dataclass(frozen=True, slots=True)
class RequestTrace:
    """Everything one worker recorded of one finished request.

    layer_ids: the worker's MoE layers, ascending
    token_ids: int32 [prompt + generated], the last sampled token included
    positions: int32 [n], ascending; tokens that have routing
    expert_ids: int16 [len(layer_ids), n, top_k]
    gate_weights: float32 [len(layer_ids), n, top_k]
    """

    request_id: str
    domain: str
    num_prompt_tokens: int
    layer_ids: Sequence[int]
    token_ids: npt.NDArray[np.int32]
    positions: npt.NDArray[np.int32]
    expert_ids: npt.NDArray[np.int16]
    gate_weights: npt.NDArray[np.float32]


def batched(traces: Sequence[RequestTrace]) -> ShardRows:
    """The traces as one batch."""
    return ShardRows(
        traces[0].layer_ids,
        [
            TracedRequest(
                t.request_id, t.domain, t.num_prompt_tokens, t.token_ids, len(t.positions)
            )
            for t in traces
        ],
        np.concatenate([t.positions for t in traces]),
        np.concatenate([t.expert_ids.transpose(1, 0, 2) for t in traces]),
        np.concatenate([t.gate_weights.transpose(1, 0, 2) for t in traces]),
    )
