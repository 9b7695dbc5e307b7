"""Stream order and blocking of the drain on a GPU, without routers."""

import threading
import time

import numpy as np
import pytest
import torch

from tracer.capture.drain import Drain

ROW_BYTES = 1400  # about what a token of DeepSeek-V3 takes


def test_large_steps_outrun_the_transfer_and_stay_whole(device):
    """Each step overwrites the buffer at once; 11 MB take far longer to send than to write."""
    drain = Drain(ROW_BYTES, 8192, device)
    storage = torch.zeros(8192, ROW_BYTES, dtype=torch.uint8, device=device)
    slots, wrong, ready = [], [], threading.Semaphore(0)

    def read():
        for index in range(300):
            ready.acquire()
            if (slots[index].rows() != index % 251).any():
                wrong.append(index)
            slots[index].release()

    reader = threading.Thread(target=read)
    reader.start()
    for index in range(300):
        storage.fill_(index % 251)
        slots.append(drain.take(storage))
        ready.release()
    reader.join()
    drain.close()
    assert wrong == []


@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
def test_taking_never_waits_for_the_device(device):
    """Torch raises at whatever synchronises; the device is still busy when the takes are done."""
    drain = Drain(ROW_BYTES, 64, device, slots=4)
    storage = torch.zeros(64, ROW_BYTES, dtype=torch.uint8, device=device)
    drain.take(storage).release()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        torch.cuda._sleep(500_000_000)  # clock cycles: a fifth of a second and more
        slots = [drain.take(storage) for _ in range(4)]
        done = torch.cuda.Event()
        done.record()
        assert not done.query()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert all((slot.rows() == 0).all() for slot in slots)


def test_the_forward_stream_goes_on_while_rows_are_sent(device):
    """Two steps are staged; the third waits on the device for a staging buffer, the host never."""
    drain = Drain(ROW_BYTES, 8192, device, slots=3)
    storage = torch.zeros(8192, ROW_BYTES, dtype=torch.uint8, device=device)
    slots = []
    for index in range(3):
        storage.fill_(index + 1)
        slots.append(drain.take(storage))
    storage.fill_(99)
    assert [np.unique(slot.rows()).tolist() for slot in slots] == [[1], [2], [3]]


def test_a_full_drain_waits_until_it_is_closed(device):
    drain = Drain(ROW_BYTES, 8, device, slots=1)
    storage = torch.full((8, ROW_BYTES), 7, dtype=torch.uint8, device=device)
    held, raised = drain.take(storage), []

    def take():
        try:
            drain.take(storage)
        except RuntimeError as error:
            raised.append(str(error))

    thread = threading.Thread(target=take)
    thread.start()
    while drain.stalls == 0:
        time.sleep(0.001)
    drain.close()
    thread.join()
    assert raised == ["the drain is closed"]
    assert (held.rows() == 7).all()


@pytest.mark.parametrize("rows", [0, 1, 5])
def test_memory_is_told_and_pinned(device, rows):
    """4 slots and 2 staging buffers of 5 rows of 12 bytes."""
    drain = Drain(12, 5, device)
    assert (drain.host_bytes, drain.device_bytes) == (240, 120)
    assert drain._host.is_pinned()
    slot = drain.take(torch.ones(rows, 12, dtype=torch.uint8, device=device))
    assert slot.rows().shape == (rows, 12)
