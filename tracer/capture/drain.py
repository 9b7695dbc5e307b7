"""Takes each step's records off the device without holding up the next step.

On CUDA a step's rows are copied on the device into a staging buffer, in stream order, so that
the next replay may overwrite the static buffer; from there a side stream copies them into pinned
memory. The host waits for nothing but a free slot: memory is bounded, and a reader that falls
behind slows the engine down instead of losing rows. Elsewhere a step is one copy in memory.

The CUDA path is written from the documentation of streams and events and not yet run on a GPU.
"""

import threading
import time

import numpy as np
import numpy.typing as npt
import torch

__all__ = ["Drain", "Slot"]

# Two, so that a snapshot never waits for the transfer just before it.
_STAGING = 2


class Slot:
    """The rows of one step on the host; whoever received it releases it, on any thread."""

    def __init__(self, drain: "Drain", memory: "_Memory", num_rows: int) -> None:
        self._drain = drain
        self._memory: _Memory | None = memory
        self._num_rows = num_rows

    def rows(self) -> npt.NDArray[np.uint8]:
        """uint8 [n, row_bytes], once they have arrived; valid until ``release``.

        Raises:
            RuntimeError: the slot was released.
        """
        memory = self._held()
        if memory.arrived is not None:
            memory.arrived.synchronize()
        rows: npt.NDArray[np.uint8] = memory.host[: self._num_rows].numpy()
        return rows

    def release(self) -> None:
        """Give the memory back for a later step.

        Raises:
            RuntimeError: the slot was released before.
        """
        memory = self._held()
        self._memory = None
        self._drain._give_back(memory)  # noqa: SLF001 - one mechanism in two classes

    def _held(self) -> "_Memory":
        if self._memory is None:
            raise RuntimeError("this slot was released")
        return self._memory


class _Memory:
    """Host memory of a slot, and on CUDA the event after which it holds its rows."""

    def __init__(self, shape: tuple[int, int], *, on_cuda: bool) -> None:
        self.host = torch.empty(shape, dtype=torch.uint8, pin_memory=on_cuda)
        # blocking: the reading thread sleeps while it waits and leaves its core to others
        self.arrived = torch.cuda.Event(blocking=True) if on_cuda else None


class _Staging:
    """A device buffer between the snapshot of a step and its transfer to the host."""

    def __init__(self, shape: tuple[int, int], device: torch.device) -> None:
        self.rows = torch.empty(shape, dtype=torch.uint8, device=device)
        self.filled = torch.cuda.Event()
        self.emptied = torch.cuda.Event()


class Drain:
    """Moves the records of one step after the other to the host.

    Memory, with b = ``row_bytes`` and T = ``max_rows``: ``slots`` * T * b bytes on the host,
    pinned on CUDA; 2 * T * b bytes on a CUDA device, none elsewhere.

    Attributes:
        host_bytes, device_bytes: the above, in bytes
        stalls, stalled_s: how often ``take`` found no slot free, and how long it waited, seconds
    """

    def __init__(
        self, row_bytes: int, max_rows: int, device: torch.device, *, slots: int = 4
    ) -> None:
        shape = (max_rows, row_bytes)
        self._on_cuda = device.type == "cuda"
        self._free = [_Memory(shape, on_cuda=self._on_cuda) for _ in range(slots)]
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
        if every slot is in use.

        Args:
            storage: uint8 [n, row_bytes], n <= max_rows, rows contiguous; n may be 0.

        Raises:
            RuntimeError: the drain is closed; its cause is the reason given to ``close``.
        """
        memory = self._acquire()
        rows = storage.shape[0]
        if self._on_cuda:
            self._send(storage, memory)
        else:
            memory.host[:rows].copy_(storage)
        return Slot(self, memory, rows)

    def _send(self, storage: torch.Tensor, memory: _Memory) -> None:
        assert memory.arrived is not None  # noqa: S101 - made in __init__ on CUDA
        rows = storage.shape[0]
        staging = self._staging[self._turn]
        self._turn = (self._turn + 1) % len(self._staging)
        forward = torch.cuda.current_stream(storage.device)
        forward.wait_event(staging.emptied)  # passes at once before its first record
        staging.rows[:rows].copy_(storage)
        staging.filled.record(forward)
        self._side.wait_event(staging.filled)
        with torch.cuda.stream(self._side):
            memory.host[:rows].copy_(staging.rows[:rows], non_blocking=True)
        staging.emptied.record(self._side)
        memory.arrived.record(self._side)

    def _acquire(self) -> _Memory:
        with self._changed:
            if not self._free and not self._closed:
                self.stalls += 1
                began = time.perf_counter()
                self._changed.wait_for(lambda: self._free or self._closed)
                self.stalled_s += time.perf_counter() - began
            if self._closed:
                raise RuntimeError("the drain is closed") from self._reason
            return self._free.pop()

    def _give_back(self, memory: _Memory) -> None:
        with self._changed:
            self._free.append(memory)
            self._changed.notify()

    def close(self, reason: BaseException | None = None) -> None:
        """Take no more steps; a ``take`` that waits raises. Slots already out stay readable."""
        with self._changed:
            self._closed = True
            self._reason = reason
            self._changed.notify_all()
        if self._on_cuda:
            self._side.synchronize()  # before the staging buffers may be freed
