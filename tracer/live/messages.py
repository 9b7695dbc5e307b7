"""What the engine's thread tells the recorder, in order."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tracer.capture.drain import Slot

__all__ = ["Ended", "Forwarded", "Lost", "Opened", "Tick"]


@dataclass(frozen=True, slots=True)
class Opened:
    """A chosen request enters the batch. ``prompt_token_ids``: the engine's own list."""

    request_id: str
    domain: str
    labels: Mapping[str, str]
    prompt_token_ids: Sequence[int]


@dataclass(frozen=True, slots=True)
class Forwarded:
    """The rows of one forward pass, request after request; some of them may not be wanted.

    skipped: of requests that enter the batch or come back to it, the tokens that the engine took
        from its prefix cache
    """

    request_ids: Sequence[str]
    row_counts: Sequence[int]
    slot: Slot
    skipped: Sequence[tuple[str, int]] = ()


@dataclass(frozen=True, slots=True)
class Ended:
    """The engine is done with a request; no more rows of it can come.

    finish_reason: stop, length, abort, error, ...; output_token_ids: the last one included
    """

    request_id: str
    finish_reason: str
    output_token_ids: Sequence[int]


@dataclass(frozen=True, slots=True)
class Lost:
    """Requests of which a row could not be taken; none of their rows is kept.

    reason: under which those that were open are counted
    """

    request_ids: Sequence[str]
    reason: str


@dataclass(frozen=True, slots=True)
class Tick:
    """Time to look at the clock. ``close``: seal whatever is finished, none comes after it."""

    close: bool = False
