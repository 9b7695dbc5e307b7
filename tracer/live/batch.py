"""Finished requests of one run's time, on their way from the recorder to the lake."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tracer.capture.finished import FinishedRequest, assemble
from tracer.capture.row_format import RowFormat
from tracer.capture.row_log import TakenRows
from tracer.errors import CaptureMismatchError
from tracer.store.shard_rows import ShardRows

__all__ = ["REQUEST_BYTES", "LiveBatch", "LiveRequest", "assemble_sound"]


# Of a request's row of `requests`, about.
REQUEST_BYTES = 1000
_TOKEN_BYTES = 8  # a reference


@dataclass(frozen=True, slots=True)
class LiveRequest:
    """A finished request.

    row: of `requests`, without run and cached tokens
    skipped: positions below it may have no record
    """

    finished: FinishedRequest
    row: dict[str, Any]
    skipped: int

    @property
    def host_bytes(self) -> int:
        """Memory of its tokens."""
        return _TOKEN_BYTES * len(self.finished.token_ids)


@dataclass(slots=True)
class LiveBatch:
    """What is committed together.

    period: of the run it belongs to
    requests: with records, in the order of ``rows``
    aborted: rows of `requests` that were given up
    """

    period: str
    requests: list[LiveRequest]
    rows: TakenRows
    aborted: list[dict[str, Any]] = field(default_factory=list)

    @property
    def host_bytes(self) -> int:
        """Memory it holds, about."""
        rows = self.rows.rows.nbytes + self.rows.seen.nbytes
        tokens = sum(request.host_bytes for request in self.requests)
        return rows + tokens + REQUEST_BYTES * self.num_chosen

    @property
    def num_chosen(self) -> int:
        """Chosen requests in it."""
        return len(self.requests) + len(self.aborted)


def assemble_sound(
    requests: Sequence[LiveRequest],
    taken: TakenRows,
    row_format: RowFormat,
    layer_ids: Sequence[int],
) -> tuple[ShardRows | None, list[LiveRequest], list[CaptureMismatchError]]:
    """The rows of a shard, without requests whose records are not what the engine says.

    Returns:
        the rows, None where no request is left; the requests in it; what is wrong with the others.
    """
    try:
        return _assemble(requests, taken, row_format, layer_ids), list(requests), []
    except CaptureMismatchError:
        pass
    sound: list[LiveRequest] = []
    errors: list[CaptureMismatchError] = []
    kept: list[np.ndarray[Any, Any]] = []
    for number, request in enumerate(requests):
        rows = np.arange(taken.starts[number], taken.starts[number + 1])
        try:
            _assemble([request], _subset(taken, [rows]), row_format, layer_ids)
        except CaptureMismatchError as error:
            errors.append(error)
        else:
            sound.append(request)
            kept.append(rows)
    if not sound:
        return None, [], errors
    return _assemble(sound, _subset(taken, kept), row_format, layer_ids), sound, errors


def _assemble(
    requests: Sequence[LiveRequest],
    taken: TakenRows,
    row_format: RowFormat,
    layer_ids: Sequence[int],
) -> ShardRows:
    finished = [request.finished for request in requests]
    skipped = [request.skipped for request in requests]
    return assemble(finished, taken, skipped, row_format, layer_ids)


def _subset(taken: TakenRows, parts: Sequence[np.ndarray[Any, Any]]) -> TakenRows:
    places = np.concatenate(parts)
    starts = np.cumsum([0, *map(len, parts)])
    seen = taken.seen[places]
    return TakenRows(taken.of_places(places[seen]), seen, starts)
