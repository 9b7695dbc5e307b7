"""How far the workers of a capture are: each tells a board, whoever started them reads it."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from tracer.capture.recording import Progress

__all__ = ["Board", "Reporter", "ShareState", "Totals"]

_TELL_EVERY = 1.0


@dataclass(slots=True)
class ShareState:
    """Of one share. requests: done, those of earlier attempts among them; starts: of its task."""

    starts: int = 0
    total: int = 0
    requests: int = 0
    tokens: int = 0
    num_bytes: int = 0


class Board:
    """Counts by share; an actor of Ray's, so that one process holds them."""

    def __init__(self, shares: int) -> None:
        self._states = [ShareState() for _ in range(shares)]

    def start(self, share: int) -> None:
        """A task for the share begins; what an earlier one had not committed is lost."""
        state = self._states[share]
        self._states[share] = ShareState(starts=state.starts + 1)

    def begin(self, share: int, total: int, done: int) -> None:
        """Its requests, and those of them in the lake."""
        state = self._states[share]
        state.total, state.requests = total, done

    def add(self, share: int, requests: int, tokens: int, num_bytes: int) -> None:
        """What was done since the last call."""
        state = self._states[share]
        state.requests += requests
        state.tokens += tokens
        state.num_bytes += num_bytes

    def read(self) -> list[ShareState]:
        """By share."""
        return self._states


class Reporter(Progress):
    """Where a task's capture reports to: the board, once a second."""

    def __init__(self, board: Any, share: int) -> None:
        self._board, self._share = board, share
        self._requests = self._tokens = self._bytes = 0
        self._told = time.monotonic()

    def __enter__(self) -> Self:
        self._board.start.remote(self._share)
        return self

    def __exit__(self, *error: object) -> None:
        self._tell()

    def note(self, text: str) -> None:
        """Of one worker among many: not told."""

    def begin(self, total: int, done: int) -> None:
        """The requests of the share."""
        self._board.begin.remote(self._share, total, done)

    def advance(self, requests: int, tokens: int) -> None:
        """Requests that finished."""
        self._requests += requests
        self._tokens += tokens
        if time.monotonic() - self._told > _TELL_EVERY:
            self._tell()

    def written(self, num_bytes: int) -> None:
        """Bytes that were committed."""
        self._bytes += num_bytes

    def _tell(self) -> None:
        self._board.add.remote(self._share, self._requests, self._tokens, self._bytes)
        self._requests = self._tokens = self._bytes = 0
        self._told = time.monotonic()


@dataclass(slots=True)
class Totals:
    """Shows what the board says as the progress of one capture.

    total: requests of all shares
    """

    progress: Any
    total: int
    _starts: dict[int, int] = field(default_factory=dict)
    _has_begun: bool = False
    _shown: tuple[int, int, int] = (0, 0, 0)

    def show(self, states: Sequence[ShareState]) -> None:
        """Bring the progress up to what the board says."""
        for index, state in enumerate(states):
            if state.starts > self._starts.get(index, 0):
                self._starts[index] = state.starts
                again = " again, for its process died" if state.starts > 1 else ""
                self.progress.note(f"share {index}/{len(states)} starts{again}")
        if not self._has_begun and any(state.total for state in states):
            self._has_begun = True
            self.progress.begin(self.total, 0)
        # Fewer than before where a process died with requests that were not in the lake yet.
        now = (
            sum(state.requests for state in states),
            sum(state.tokens for state in states),
            sum(state.num_bytes for state in states),
        )
        requests, tokens, num_bytes = (a - b for a, b in zip(now, self._shown, strict=True))
        self._shown = now
        if requests or tokens:
            self.progress.advance(requests, tokens)
        if num_bytes:
            self.progress.written(num_bytes)
