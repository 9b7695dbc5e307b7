"""Finished requests and their records, checked against what the engine returned."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tracer.capture.row_format import RowFormat
from tracer.capture.row_log import TakenRows
from tracer.errors import CaptureMismatchError
from tracer.store.shard_rows import ShardRows, TracedRequest

__all__ = ["FinishedRequest", "assemble"]

# Expert ids of a record that was not written, by bytes per id: all bits set.
_NO_EXPERT = {1: 255, 2: -1}
# Fields of the record that are tables of their own in the lake, where the run has them.
_EXTRAS = ("candidate_ids", "candidate_scores", "router_logits")


@dataclass(frozen=True, slots=True)
class FinishedRequest:
    """What the engine says of a request it finished; the rows must agree with it.

    engine_id: the id the worker knows it by
    token_ids: prompt and generated tokens, the last sampled one included
    cached_prefix_tokens: prompt tokens that its first prefill skipped, so have no rows
    """

    engine_id: str
    request_id: str
    domain: str
    num_prompt_tokens: int
    token_ids: Sequence[int]
    cached_prefix_tokens: int = 0

    @property
    def num_forwarded(self) -> int:
        """Tokens that were run, cached ones included: the last sampled one never is."""
        return len(self.token_ids) - 1


def assemble(
    finished: Sequence[FinishedRequest],
    taken: TakenRows,
    skipped: Sequence[int],
    row_format: RowFormat,
    layer_ids: Sequence[int],
) -> ShardRows:
    """The rows of a shard.

    Args:
        finished: the requests, one or more.
        taken: their records, in the same order.
        skipped: of each, the positions below which a record may be missing, because the
            engine's prefix cache had the token; 0 for most.
        row_format: of the records.
        layer_ids: the layers in a record.

    Raises:
        CaptureMismatchError: a token that was not seen or is not the one the engine returned,
            or a layer that did not report.
    """
    tokens = [np.asarray(request.token_ids, dtype=np.int32) for request in finished]
    lengths = np.diff(taken.starts)
    positions = np.arange(int(taken.starts[-1])) - np.repeat(taken.starts[:-1], lengths)

    def fail(row: Any, what: str) -> None:
        request = finished[_request_of(taken, row)]
        raise CaptureMismatchError(request.request_id, what)

    unseen = np.flatnonzero(~taken.seen & (positions >= np.repeat(skipped, lengths)))
    if len(unseen):
        begin, end = taken.starts[_request_of(taken, unseen[0]) :][:2]
        fail(
            unseen[0],
            f"{int((unseen < end).sum())} of {end - begin} tokens were not seen, the first at"
            f" position {positions[unseen[0]]}",
        )
    kept = np.flatnonzero(taken.seen)
    rows = taken.of_places(kept)
    expected = np.concatenate([part[:-1] for part in tokens])[kept]
    seen = row_format.array(rows, "token_id")[:, 0]
    wrong = np.flatnonzero(seen != expected)
    if len(wrong):
        at = wrong[0]
        fail(
            kept[at],
            f"token {seen[at]} was seen at position {positions[kept[at]]}, the engine returned"
            f" {expected[at]}",
        )
    ids = row_format.array(rows, "expert_ids")
    missing = ids == _NO_EXPERT[ids.dtype.itemsize]
    if missing.any():
        at, layer = np.argwhere(missing.any(axis=-1))[0]
        fail(
            kept[at],
            f"layer {layer_ids[layer]} did not report its choice at position {positions[kept[at]]}",
        )
    owner = np.repeat(np.arange(len(finished)), lengths)[kept]
    counts = np.bincount(owner, minlength=len(finished))
    recorded = {field.name for field in row_format.fields}
    extras: dict[str, Any] = {
        name: row_format.array(rows, name) for name in _EXTRAS if name in recorded
    }
    return ShardRows(
        layer_ids,
        [
            TracedRequest(
                request.request_id, request.domain, request.num_prompt_tokens, part, int(count)
            )
            for request, part, count in zip(finished, tokens, counts, strict=True)
        ],
        positions[kept].astype(np.int32),
        ids,
        row_format.array(rows, "gate_weights"),
        **extras,
    )


def _request_of(taken: TakenRows, row: Any) -> int:
    """Which request a record belongs to."""
    return int(np.searchsorted(taken.starts, int(row), side="right")) - 1
