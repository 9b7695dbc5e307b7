"""Records of requests that are not finished, as bytes in order of arrival.

Appending a step is one copy, whatever came before it. Which records belong to whom is looked at
once, when requests are finished: then one pass picks theirs and keeps the others.

Host memory: ``row_bytes + 4`` for each token forwarded since the last ``take``, and for each token
of the requests that were unfinished then, rounded up to whole chunks of about 4 MB. Chunks are
kept for later rows, so it is the peak that counts. ``take`` adds its answer and about 40 bytes per
record while it works.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from tracer.capture.row_format import RowFormat

__all__ = ["NOBODY", "RowLog", "TakenRows"]

# Request number of records that nobody wants.
NOBODY = -1

_CHUNK_BYTES = 1 << 22


@dataclass(frozen=True, slots=True)
class TakenRows:
    """Records of requests, dense: request after request, position after position.

    rows: uint8 [n, row_bytes]; undefined where ``seen`` is False, or only those that were seen
    seen: bool [n], whether the position was forwarded at all
    starts: int64 [requests + 1], where each request begins
    """

    rows: npt.NDArray[np.uint8]
    seen: npt.NDArray[np.bool_]
    starts: npt.NDArray[np.int64]

    def compact(self) -> "TakenRows":
        """The same without memory for what was not seen."""
        if len(self.rows) < len(self.seen) or self.seen.all():
            return self
        return TakenRows(self.rows[self.seen], self.seen, self.starts)

    def of_places(self, places: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        """Records uint8 [m, row_bytes] at ``places`` int64 [m], all of them seen, ascending."""
        if len(self.rows) == len(self.seen):
            return self.rows if len(places) == len(self.seen) else self.rows[places]
        if len(places) == len(self.rows):
            return self.rows
        numbers = np.cumsum(self.seen)[places] - 1
        return np.asarray(self.rows[numbers])


@dataclass(slots=True)
class RowLog:
    """Append-only until taken from. ``num_rows``: records held."""

    row_format: RowFormat
    num_rows: int = 0
    _chunks: list[npt.NDArray[np.uint8]] = field(default_factory=list)
    _owners: list[npt.NDArray[np.int32]] = field(default_factory=list)
    _spare: list[npt.NDArray[np.uint8]] = field(default_factory=list)

    @property
    def _chunk_rows(self) -> int:
        return max(1, _CHUNK_BYTES // self.row_format.row_bytes)

    @property
    def host_bytes(self) -> int:
        """Bytes allocated."""
        rows = (len(self._chunks) + len(self._spare)) * self._chunk_rows
        return rows * self.row_format.row_bytes + 4 * len(self._chunks) * self._chunk_rows

    def append(self, rows: npt.NDArray[np.uint8], owners: npt.NDArray[np.int32]) -> None:
        """Copy records uint8 [n, row_bytes] of the requests numbered int32 [n]."""
        size, done = self._chunk_rows, 0
        while done < len(rows):
            chunk, at = divmod(self.num_rows, size)
            if chunk == len(self._chunks):
                self._chunks.append(self._new_chunk())
                self._owners.append(np.empty(size, dtype=np.int32))
            count = min(size - at, len(rows) - done)
            self._chunks[chunk][at : at + count] = rows[done : done + count]
            self._owners[chunk][at : at + count] = owners[done : done + count]
            self.num_rows += count
            done += count

    def _new_chunk(self) -> npt.NDArray[np.uint8]:
        # Fresh memory costs a page fault per 4 KB, several times the copy into it.
        if self._spare:
            return self._spare.pop()
        return np.empty((self._chunk_rows, self.row_format.row_bytes), dtype=np.uint8)

    def take(self, numbers: Sequence[int], lengths: Sequence[int]) -> TakenRows:
        """Remove the records of some requests and order them by request and position.

        Of several records of one position the last wins: a preempted request computes its rows
        again, and a rejected draft token is replaced by the accepted one. Positions from
        ``lengths`` on are dropped: rejected drafts beyond the end of the output.

        Args:
            numbers: of the requests to take, each once.
            lengths: the positions of each, from 0.
        """
        counts = np.asarray(lengths, dtype=np.int64)
        starts = np.concatenate([[0], np.cumsum(counts)])
        owner = self._concatenated(self._owners)
        # Numbers are reused, so the highest is about as large as the number of open requests.
        highest = max([int(owner.max(initial=NOBODY)), *numbers, 0])
        order = np.full(highest + 2, -1, dtype=np.int32)
        order[np.asarray(numbers, dtype=np.int64)] = np.arange(len(numbers), dtype=np.int32)
        order[NOBODY] = -1  # the last entry, which no request has
        request = order[owner]
        source = np.full(int(starts[-1]), -1, dtype=np.int64)
        mine = np.flatnonzero(request >= 0)
        place = self._positions()[mine]
        inside = place < counts[request[mine]]
        mine, place = mine[inside], place[inside]
        # NumPy assigns in order, so of equal targets the last stays.
        source[starts[request[mine]] + place] = mine
        rows = self._gather(source)
        self._keep(np.flatnonzero((request < 0) & (owner != NOBODY)))
        return TakenRows(rows, source >= 0, starts)

    def _concatenated(self, parts: Sequence[npt.NDArray[np.int32]]) -> npt.NDArray[np.int32]:
        if not parts:
            return np.empty(0, dtype=np.int32)
        return np.concatenate(parts)[: self.num_rows]

    def _positions(self) -> npt.NDArray[np.int32]:
        return self._concatenated(
            [
                np.asarray(self.row_format.array(chunk, "position")[:, 0], dtype=np.int32)
                for chunk in self._chunks
            ]
        )

    def _gather(self, source: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        rows = np.empty((len(source), self.row_format.row_bytes), dtype=np.uint8)
        size = self._chunk_rows
        chunk_of = source // size  # -1 // size is -1: a hole belongs to no chunk
        for number, chunk in enumerate(self._chunks):
            wanted = np.flatnonzero(chunk_of == number)
            rows[wanted] = chunk[source[wanted] - number * size]
        return rows

    def _keep(self, kept: npt.NDArray[np.int64]) -> None:
        """Move the records numbered ``kept`` to the front, chunk by chunk."""
        chunks, owners, size = self._chunks, self._owners, self._chunk_rows
        self._chunks, self._owners, self.num_rows = [], [], 0
        for number, (chunk, owner) in enumerate(zip(chunks, owners, strict=True)):
            low, high = np.searchsorted(kept, [number * size, (number + 1) * size])
            inside = kept[low:high] - number * size
            rows = chunk[inside]  # a copy: the chunk may be written to from here on
            self._spare.append(chunk)
            self.append(rows, owner[inside])
