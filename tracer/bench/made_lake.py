"""Made-up routing as a run of a lake."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tracer import __version__
from tracer.bench.made_routing import MadeModel
from tracer.store.lake import Lake, utc_now
from tracer.store.run_writer import RunWriter
from tracer.store.shard_rows import TracedRequest

__all__ = ["begin_run", "request_rows"]


def begin_run(folder: Path, model: MadeModel, run_id: str) -> RunWriter:
    """A run that nobody else writes, in a new lake in ``folder``."""
    lake = Lake.create(folder)
    lake.put_run(
        {
            "run_id": run_id,
            "status": "running",
            "model": "made-up",
            "engine": "none",
            "num_experts": model.num_experts,
            "top_k": model.top_k,
            "moe_layers": list(range(model.num_layers)),
            "weight_precision": "bf16",
            "tracer_version": __version__,
            "started_at": utc_now(),
        }
    )
    return RunWriter(lake, run_id, frozenset(), 0)


def request_rows(requests: Sequence[TracedRequest]) -> list[dict[str, Any]]:
    """Rows of `requests`."""
    return [
        {
            "request_id": request.request_id,
            "sample_index": 0,
            "row_id": request.request_id,
            "domain": request.domain,
            "labels": {},
            "status": "complete",
            "num_prompt_tokens": request.num_prompt_tokens,
            "num_generated_tokens": len(request.token_ids) - request.num_prompt_tokens,
            "cached_prefix_tokens": 0,
            "finish_reason": "length",
            "prompt_digest": "",
        }
        for request in requests
    ]
