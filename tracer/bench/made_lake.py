"""Made-up routing as a run of a lake."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tracer import __version__
from tracer.bench.made_routing import MadeModel, MadeRouting
from tracer.store.lake import Lake, utc_now
from tracer.store.run_writer import RunWriter, writing_run
from tracer.store.shard import ShardWriter
from tracer.store.shard_rows import TracedRequest

__all__ = ["begin_run", "fill_lake", "request_rows"]


def begin_run(folder: Path, model: MadeModel, run_id: str) -> RunWriter:
    """A run that nobody else writes, in a new lake in ``folder``."""
    lake = Lake.create(folder)
    lake.put_run({**_run_row(model, run_id), "status": "running", "started_at": utc_now()})
    return RunWriter(lake, run_id, frozenset(), 0)


def fill_lake(
    folder: Path, made: MadeRouting, batches: int, run_id: str, note: Callable[[str], None]
) -> tuple[Lake, dict[str, int]]:
    """A complete run of ``batches`` shards with the same rows of other requests each.

    Returns:
        The new lake in ``folder``, and bytes by table.
    """
    lake = Lake.create(folder)
    writer = ShardWriter(lake.storage, run_id, made.model.num_experts, "bf16")
    sizes: dict[str, int] = {}
    with writing_run(lake, _run_row(made.model, run_id)) as run:
        for batch in range(batches):
            note(f"batch {batch + 1:,} of {batches:,}")
            rows = made.batch(batch)
            files = writer.write(f"{batch:06d}-w0", rows)
            run.commit(batch, files, request_rows(rows.requests))
            for file in files:
                sizes[file.table] = sizes.get(file.table, 0) + file.size
    return lake, sizes


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


def _run_row(model: MadeModel, run_id: str) -> dict[str, Any]:
    return {
        "run_id": run_id,
        "model": "made-up",
        "engine": "none",
        "num_experts": model.num_experts,
        "top_k": model.top_k,
        "moe_layers": list(range(model.num_layers)),
        "weight_precision": "bf16",
        "tracer_version": __version__,
    }
