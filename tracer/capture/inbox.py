"""Hands items to a thread that is woken once for many of them.

A thread that wakes for every step of an engine competes with it for the interpreter each time; a
step of decoding is small and can wait for the next ones. Whoever waits for the thread, or gives
it an item of another kind, wakes it at once.
"""

import threading
from typing import Any

__all__ = ["Inbox"]

_MAX_WAITING = 32


class Inbox:
    """Items in order, from any thread to one."""

    def __init__(self, wake_rows: int) -> None:
        """``wake_rows``: the thread is woken when items of so many rows wait, or 32 of them."""
        self._wake_rows = wake_rows
        self._items: list[Any] = []
        self._rows = 0
        self._wanted = False
        self._unfinished = 0
        self._changed = threading.Condition()

    def put(self, item: Any, rows: int | None = None) -> None:
        """Add an item that may wait until there are ``rows`` enough; None: that may not wait."""
        with self._changed:
            self._items.append(item)
            self._unfinished += 1
            self._rows += rows or 0
            if rows is None or self._rows >= self._wake_rows or len(self._items) >= _MAX_WAITING:
                self._wake()

    def take(self) -> list[Any]:
        """All items, once it is time to look at them; tell ``done`` of them."""
        with self._changed:
            self._changed.wait_for(lambda: self._wanted)
            self._wanted = False
            items, self._items, self._rows = self._items, [], 0
            return items

    def done(self, items: int) -> None:
        """So many of the items that were taken are dealt with."""
        with self._changed:
            self._unfinished -= items
            if not self._unfinished:
                self._changed.notify_all()

    def join(self) -> None:
        """Wait until every item was dealt with."""
        with self._changed:
            self._wake()
            self._changed.wait_for(lambda: not self._unfinished)

    def _wake(self) -> None:
        self._wanted = True
        self._changed.notify_all()
