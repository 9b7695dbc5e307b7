"""Takes each step's records off the device without holding up the next step.

On CUDA a step's rows are copied on the device into a staging buffer, in stream order, so that
the next replay may overwrite the static buffer; from there a side stream copies them into pinned
memory. The host waits for nothing but free memory: it is bounded, and a reader that falls behind
slows the engine down instead of losing rows. Elsewhere a step is one copy in memory.

Host memory is a ring: a step takes as much of it as it has rows, so that many small steps of
decoding fit where a few large ones of prefill do, and readers need not be quick.

``make test-gpu`` checks the CUDA path.
"""

import threading
import time
from collections import deque

import numpy as np
import numpy.typing as npt
import torch

__all__ = ["Drain", "Slot"]

# Two, so that a snapshot never waits for the transfer just before it.
_STAGING = 2


class Slot:
    """The rows of one step on the host; whoever received it releases it, on any thread."""

    def __init__(
        self,
        drain: "Drain",
        part: "_Part",
        rows: npt.NDArray[np.uint8],
        arrived: "torch.cuda.Event | None",
    ) -> None:
        self._drain = drain
        self._part: _Part | None = part
        self._rows = rows
        self._arrived = arrived

    def rows(self) -> npt.NDArray[np.uint8]:
        """uint8 [n, row_bytes], once they have arrived; valid until ``release``.

        Raises:
            RuntimeError: the slot was released.
        """
        self._held()
        if self._arrived is not None:
            self._arrived.synchronize()
        return self._rows

    def release(self) -> None:
        """Give the memory back for a later step.

        Raises:
            RuntimeError: the slot was released before.
        """
        part, self._part = self._held(), None
        self._drain._give_back(part, self._arrived)  # noqa: SLF001 - one mechanism in two classes

    def _held(self) -> "_Part":
        if self._part is None:
            raise RuntimeError("this slot was released")
        return self._part


class _Part:
    """Rows ``[begin, end)`` of the ring, counted on without ever beginning anew."""

    __slots__ = ("begin", "end", "released")

    def __init__(self, begin: int, end: int) -> None:
        self.begin, self.end, self.released = begin, end, False


class _Ring:
    """Which rows of a block of ``size`` are taken; parts are contiguous and given in order."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._parts: deque[_Part] = deque()

    def take(self, rows: int) -> _Part | None:
        """A part of so many rows, or None where they do not fit."""
        parts = self._parts
        begin, oldest = (parts[-1].end, parts[0].begin) if parts else (0, 0)
        if begin % self._size + rows > self._size:  # would be torn: leave the end unused
            begin += self._size - begin % self._size
        if begin + rows - oldest > self._size:
            return None
        part = _Part(begin, begin + rows)
        parts.append(part)
        return part

    def release(self, part: _Part) -> None:
        """Parts become free in the order in which they were taken."""
        part.released = True
        while self._parts and self._parts[0].released:
            self._parts.popleft()


class _Staging:
    """A device buffer between the snapshot of a step and its transfer to the host."""

    def __init__(self, shape: tuple[int, int], device: torch.device) -> None:
        self.rows = torch.empty(shape, dtype=torch.uint8, device=device)
        self.filled = torch.cuda.Event()
        self.emptied = torch.cuda.Event()


class Drain:
    """Moves the records of one step after the other to the host.

    Memory, with b = ``row_bytes`` and T = ``max_rows``: ``slots`` * T * b bytes on the host,
    pinned on CUDA, room for ``slots`` of the largest steps or as many smaller ones as have
    their rows; 2 * T * b bytes on a CUDA device, none elsewhere.

    Attributes:
        max_rows, slots: as given
        host_bytes, device_bytes: the above, in bytes
        stalls, stalled_s: how often ``take`` found no room, and how long it waited, seconds
    """

    def __init__(
        self, row_bytes: int, max_rows: int, device: torch.device, *, slots: int = 4
    ) -> None:
        shape = (max_rows, row_bytes)
        self.max_rows, self.slots = max_rows, slots
        self._on_cuda = device.type == "cuda"
        self._host = torch.empty(
            (slots * max_rows, row_bytes), dtype=torch.uint8, pin_memory=self._on_cuda
        )
        self._host_rows: npt.NDArray[np.uint8] = self._host.numpy()
        self._ring = _Ring(slots * max_rows)
        self._events: list[torch.cuda.Event] = []
        self._changed = threading.Condition()
        self._closed = False
        self._reason: BaseException | None = None
        self._staging: list[_Staging] = []
        if self._on_cuda:
            self._staging = [_Staging(shape, device) for _ in range(_STAGING)]
            self._side = torch.cuda.Stream(device)
        self._turn = 0
        self.host_bytes = slots * max_rows * row_bytes
        self.device_bytes = len(self._staging) * max_rows * row_bytes
        self.stalls = 0
        self.stalled_s = 0.0

    def take(self, storage: torch.Tensor) -> Slot:
        """Send a step's records on their way, and answer where they will arrive.

        Call it on the thread and CUDA stream of the forward pass, after it was launched. Whatever
        is launched later on that stream may overwrite ``storage``. Waits, for as long as it takes,
        if there is no room.

        Args:
            storage: uint8 [n, row_bytes], n <= max_rows, rows contiguous; n may be 0.

        Raises:
            RuntimeError: the drain is closed; its cause is the reason given to ``close``.
        """
        part, event = self._acquire(storage.shape[0])
        return self._move(storage, part, event)

    def take_now(self, storage: torch.Tensor) -> Slot | None:
        """As ``take``, but None where there is no room at this moment."""
        with self._changed:
            part = self._room(storage.shape[0])
            if part is None:
                self.stalls += 1
                return None
            event = self._event()
        return self._move(storage, part, event)

    def _move(self, storage: torch.Tensor, part: _Part, event: "torch.cuda.Event | None") -> Slot:
        begin = part.begin % len(self._host_rows)
        end = begin + storage.shape[0]
        rows = self._host_rows[begin:end]
        if event is not None:
            self._send(storage, self._host[begin:end], event)
        else:
            rows[:] = storage.numpy()
        return Slot(self, part, rows, event)

    def _send(self, storage: torch.Tensor, host: torch.Tensor, arrived: torch.cuda.Event) -> None:
        rows = storage.shape[0]
        staging = self._staging[self._turn]
        self._turn = (self._turn + 1) % len(self._staging)
        forward = torch.cuda.current_stream(storage.device)
        forward.wait_event(staging.emptied)  # passes at once before its first record
        staging.rows[:rows].copy_(storage)
        staging.filled.record(forward)
        self._side.wait_event(staging.filled)
        with torch.cuda.stream(self._side):
            host.copy_(staging.rows[:rows], non_blocking=True)
        staging.emptied.record(self._side)
        arrived.record(self._side)

    def _acquire(self, rows: int) -> tuple[_Part, torch.cuda.Event | None]:
        with self._changed:
            part = self._room(rows)
            if part is None:
                self.stalls += 1
                began = time.perf_counter()
                while part is None:
                    self._changed.wait()
                    part = self._room(rows)
                self.stalled_s += time.perf_counter() - began
            return part, self._event()

    def _event(self) -> "torch.cuda.Event | None":
        if not self._on_cuda:
            return None
        # blocking: the reading thread sleeps while it waits and leaves its core to others
        return self._events.pop() if self._events else torch.cuda.Event(blocking=True)

    def _room(self, rows: int) -> _Part | None:
        if self._closed:
            raise RuntimeError("the drain is closed") from self._reason
        return self._ring.take(rows)

    def _give_back(self, part: _Part, event: torch.cuda.Event | None) -> None:
        with self._changed:
            self._ring.release(part)
            if event is not None:
                self._events.append(event)
            self._changed.notify()

    def close(self, reason: BaseException | None = None) -> None:
        """Take no more steps; a ``take`` that waits raises. Slots already out stay readable."""
        with self._changed:
            self._closed = True
            self._reason = reason
            self._changed.notify_all()
        if self._on_cuda:
            self._side.synchronize()  # before the staging buffers may be freed
