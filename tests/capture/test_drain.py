"""Handing steps to the host on the CPU: content, order, bounded memory. CUDA: tests/gpu."""

import threading
import time

import pytest

torch = pytest.importorskip("torch", reason="needs vLLM: make setup")

from tracer.capture.drain import Drain  # noqa: E402

CPU = torch.device("cpu")


def step(first, rows=2, row_bytes=3):
    """Rows of ascending bytes, beginning with ``first``."""
    count = rows * row_bytes
    return torch.arange(first, first + count, dtype=torch.uint8).reshape(rows, row_bytes)


def waits(drain):
    """Until a take on another thread found no slot free."""
    while drain.stalls == 0:
        time.sleep(0.001)


def test_a_slot_keeps_its_step_after_the_buffer_was_overwritten():
    drain = Drain(3, 4, CPU)
    storage = step(0)
    slot = drain.take(storage)
    storage.fill_(99)
    assert slot.rows().tolist() == [[0, 1, 2], [3, 4, 5]]


def test_steps_of_any_size_share_the_slots():
    """Ten steps of 0 to 4 rows through two slots; each reads what it was given."""
    drain = Drain(3, 4, CPU, slots=2)
    for index in range(10):
        slot = drain.take(step(index, rows=index % 5))
        assert slot.rows().tolist() == step(index, rows=index % 5).tolist()
        slot.release()
    assert drain.stalls == 0


def test_memory_is_bounded_and_told():
    """5 slots of 7 rows of 11 bytes; the CPU needs no staging."""
    drain = Drain(11, 7, CPU, slots=5)
    assert (drain.host_bytes, drain.device_bytes) == (385, 0)


def test_a_step_without_a_free_slot_waits_for_a_release():
    drain = Drain(3, 4, CPU, slots=2)
    first, second = drain.take(step(0)), drain.take(step(10))
    third = []
    thread = threading.Thread(target=lambda: third.append(drain.take(step(20))))
    thread.start()
    waits(drain)
    assert third == []

    first.release()
    thread.join()

    assert third[0].rows().tolist() == step(20).tolist()
    assert second.rows().tolist() == step(10).tolist()
    assert drain.stalls == 1
    assert drain.stalled_s > 0


def test_closing_wakes_whoever_waits_and_says_why():
    drain = Drain(3, 4, CPU, slots=1)
    held = drain.take(step(0))
    raised = []

    def take():
        try:
            drain.take(step(10))
        except RuntimeError as error:
            raised.append(error)

    thread = threading.Thread(target=take)
    thread.start()
    waits(drain)
    reason = OSError("disk full")

    drain.close(reason)
    thread.join()

    assert str(raised[0]) == "the drain is closed"
    assert raised[0].__cause__ is reason
    assert held.rows().tolist() == step(0).tolist()
    held.release()
    with pytest.raises(RuntimeError, match="closed"):
        drain.take(step(20))


def test_a_released_slot_is_of_no_more_use():
    """Else one step's memory could be handed out twice."""
    drain = Drain(3, 4, CPU)
    slot = drain.take(step(0))
    slot.release()
    with pytest.raises(RuntimeError, match="released"):
        slot.rows()
    with pytest.raises(RuntimeError, match="released"):
        slot.release()


def test_a_reader_on_another_thread_receives_every_step_in_order():
    """1000 steps through three slots, a slow reader: nothing lost, nothing torn."""
    drain = Drain(4, 8, CPU, slots=3)
    storage = torch.zeros(8, 4, dtype=torch.uint8)
    given, seen, ready = [], [], threading.Semaphore(0)

    def read():
        for index in range(1000):
            ready.acquire()
            seen.append(given[index].rows().copy())
            given[index].release()

    reader = threading.Thread(target=read)
    reader.start()
    for index in range(1000):
        storage.fill_(index % 251)
        given.append(drain.take(storage[: 1 + index % 8]))
        ready.release()
    reader.join()
    assert [rows.shape for rows in seen] == [(1 + index % 8, 4) for index in range(1000)]
    assert all((rows == index % 251).all() for index, rows in enumerate(seen))
