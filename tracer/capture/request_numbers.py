"""Small numbers for the engine's requests, for as long as the engine may forward them.

A request has two ends: the driver takes its rows when it has the output, and the engine drops it
from its batch. Either may come first. In between, an engine that runs ahead of its front end may
forward it once more; those late rows belong to nobody.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from tracer.capture.row_log import NOBODY

__all__ = ["RequestNumbers"]


@dataclass(slots=True)
class RequestNumbers:
    """Numbers are reused, so that they stay below the number of open requests."""

    _numbers: dict[str, int] = field(default_factory=dict)
    _free: list[int] = field(default_factory=list)
    _used: int = 0
    _dropped: set[str] = field(default_factory=set)
    _ended: set[str] = field(default_factory=set)

    def of(self, request_ids: Sequence[str]) -> npt.NDArray[np.int32]:
        """Number of each request, int32 [len]; new ones get one, unwanted ones are NOBODY."""
        numbers = list(map(self._numbers.get, request_ids))
        if None in numbers:
            numbers = [self._number(request_id) for request_id in request_ids]
        return np.array(numbers, dtype=np.int32)

    def _number(self, request_id: str) -> int:
        number = self._numbers.get(request_id)
        if number is None:
            number = self._free.pop() if self._free else self._used
            self._used += number == self._used
            self._numbers[request_id] = number
        return number

    def mute(self, request_ids: Iterable[str]) -> None:
        """Rows of these are not wanted, from the start."""
        for request_id in request_ids:
            self._numbers[request_id] = NOBODY
            self._dropped.add(request_id)

    def close(self, request_ids: Iterable[str]) -> list[int]:
        """The driver is done with these: their numbers, free for others from now on.

        A request that was never forwarded gets a number, too, without rows.
        """
        closed = []
        for request_id in request_ids:
            number = self._number(request_id)
            closed.append(number)
            if number != NOBODY:
                self._free.append(number)
            if request_id in self._ended:
                self._ended.discard(request_id)
                del self._numbers[request_id]
            else:
                self._numbers[request_id] = NOBODY
                self._dropped.add(request_id)
        return closed

    def end(self, request_ids: Iterable[str]) -> None:
        """The engine dropped these from its batch: no more rows of them can come."""
        for request_id in request_ids:
            if request_id in self._dropped:
                self._dropped.discard(request_id)
                del self._numbers[request_id]
            elif request_id in self._numbers:
                self._ended.add(request_id)

    def __len__(self) -> int:
        """Requests remembered."""
        return len(self._numbers)
