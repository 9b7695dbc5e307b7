"""Handing steps to the host on the CPU: content, order, bounded memory. CUDA: tests/gpu."""

import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="needs vLLM: make setup")

from tracer.capture.drain import Drain  # noqa: E402

CPU = torch.device("cpu")


def step(first, rows=2, row_bytes=3):
    """Rows of ascending bytes, beginning with ``first``."""
    count = rows * row_bytes
    return torch.arange(first, first + count, dtype=torch.uint8).reshape(rows, row_bytes)


def waits(drain):
    """Until a take on another thread found no room."""
    while drain.stalls == 0:
        time.sleep(0.001)


def test_a_slot_keeps_its_step_after_the_buffer_was_overwritten():
    drain = Drain(3, 4, CPU)
    storage = step(0)
    slot = drain.take(storage)
    storage.fill_(99)
    assert slot.rows().tolist() == [[0, 1, 2], [3, 4, 5]]


def test_small_steps_take_only_the_rows_they_have():
    """Two slots of four rows hold eight steps of one row, and any number of empty ones."""
    drain = Drain(3, 4, CPU, slots=2)
    slots = [drain.take(step(10 * index, rows=1)) for index in range(8)]
    empty = drain.take(step(0, rows=0))
    assert [slot.rows().tolist() for slot in slots] == [
        step(10 * index, rows=1).tolist() for index in range(8)
    ]
    assert empty.rows().shape == (0, 3)
    assert drain.stalls == 0


def test_a_step_lies_in_one_piece_where_the_memory_begins_anew():
    """Of eight rows five are taken and given back; the next four do not fit behind them."""
    drain = Drain(3, 4, CPU, slots=2)
    first, second = drain.take(step(0, rows=3)), drain.take(step(20, rows=2))
    first.release()
    third = drain.take(step(40, rows=3))  # behind the others, to the end
    fourth = drain.take(step(60, rows=3))  # where the first was
    assert second.rows().tolist() == step(20, rows=2).tolist()
    assert third.rows().tolist() == step(40, rows=3).tolist()
    assert fourth.rows().tolist() == step(60, rows=3).tolist()
    assert drain.stalls == 0


def test_slots_may_be_given_back_in_any_order():
    """The memory of a step that is given back early is free once older ones are, too."""
    drain = Drain(3, 4, CPU, slots=2)
    first, second = drain.take(step(0, rows=4)), drain.take(step(20, rows=4))
    second.release()
    assert first.rows().tolist() == step(0, rows=4).tolist()
    first.release()
    again = [drain.take(step(40, rows=4)), drain.take(step(60, rows=4))]
    assert [slot.rows()[0, 0] for slot in again] == [40, 60]
    assert drain.stalls == 0


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3)), max_size=60))
def test_any_mix_of_steps_and_releases_keeps_every_row(moves):
    """Each step is followed by so many releases, of the oldest; what is held stays as it was."""
    drain = Drain(2, 5, CPU, slots=3)
    held = []
    for number, (rows, releases) in enumerate(moves):
        while sum(len(slot.rows()) for slot, _ in held) > 5:  # then 5 more fit in any case
            held.pop(0)[0].release()
        value = torch.full((rows, 2), number % 251, dtype=torch.uint8)
        held.append((drain.take(value), value.numpy()))
        for slot, _ in held[:releases]:
            slot.release()
        del held[:releases]
        for slot, value in held:
            assert (slot.rows() == value).all()
            assert len(slot.rows()) == len(value)
    assert drain.stalls == 0


def test_memory_is_bounded_and_told():
    """5 slots of 7 rows of 11 bytes; the CPU needs no staging."""
    drain = Drain(11, 7, CPU, slots=5)
    assert (drain.host_bytes, drain.device_bytes) == (385, 0)


def test_a_step_without_room_waits_for_a_release():
    drain = Drain(3, 2, CPU, slots=2)
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
    drain = Drain(3, 2, CPU, slots=1)
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
