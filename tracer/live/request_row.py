"""The row of `requests` of a live request, as far as it is known when the request ends."""

import hashlib
import hmac
from typing import Any

import numpy as np

from tracer.live.messages import Ended, Opened

__all__ = ["live_row"]


def live_row(opened: Opened, ended: Ended, hash_key: bytes | None) -> dict[str, Any]:
    """All but run, status and cached tokens.

    Args:
        opened: how it began.
        ended: how it ended.
        hash_key: of the digest of its prompt's token ids; without one, plain SHA-256.
    """
    tokens = np.asarray(opened.prompt_token_ids, dtype="<i4").tobytes()
    digest = (
        hmac.new(hash_key, tokens, hashlib.sha256)
        if hash_key is not None
        else hashlib.sha256(tokens)
    )
    return {
        "request_id": opened.request_id,
        "sample_index": 0,
        "row_id": opened.request_id,
        "domain": opened.domain,
        "labels": dict(opened.labels),
        "num_prompt_tokens": len(opened.prompt_token_ids),
        "num_generated_tokens": len(ended.output_token_ids),
        "finish_reason": ended.finish_reason,
        "prompt_digest": digest.hexdigest(),
    }
