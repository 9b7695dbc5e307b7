"""The inbox: items in order, one wake for many, and at once where it matters."""

import threading
import time

from tracer.capture.inbox import Inbox

LONG = 60.0


class Reader:
    """A thread that takes until it is given None; ``taken``: what each wake brought."""

    def __init__(self, inbox):
        self._inbox = inbox
        self.taken = []
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self):
        running = True
        while running:
            items = self._inbox.take()
            self.taken.append(items)
            running = items[-1:] != [None]
            self._inbox.done(len(items))

    def join(self):
        self._thread.join(LONG)
        assert not self._thread.is_alive()


def until(condition):
    end = time.monotonic() + LONG
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


def test_rows_wait_until_there_are_enough_of_them():
    """Three times 30 rows of 100 wait; 10 more wake the thread, once, for all four."""
    inbox = Inbox(100)
    reader = Reader(inbox)
    for number in range(3):
        inbox.put(number, 30)
    time.sleep(0.1)
    assert reader.taken == []
    inbox.put(3, 10)
    until(lambda: reader.taken)
    inbox.put(None)
    reader.join()
    assert reader.taken == [[0, 1, 2, 3], [None]]


def test_items_of_few_rows_do_not_wait_for_ever():
    """32 items are enough, whatever their rows."""
    inbox = Inbox(1_000_000)
    reader = Reader(inbox)
    for number in range(31):
        inbox.put(number, 1)
    time.sleep(0.1)
    assert reader.taken == []
    inbox.put(31, 0)
    until(lambda: reader.taken)
    inbox.put(None)
    reader.join()
    assert reader.taken[0] == list(range(32))


def test_an_item_without_rows_brings_those_before_it():
    inbox = Inbox(100)
    reader = Reader(inbox)
    inbox.put("step", 1)
    inbox.put("seal")
    inbox.put(None)
    reader.join()
    assert [item for items in reader.taken for item in items] == ["step", "seal", None]


def test_joining_wakes_the_thread_and_waits_for_what_it_does():
    inbox = Inbox(100)
    inbox.put("step", 1)
    order = []

    def read():
        items = inbox.take()
        time.sleep(0.05)
        order.append(items)
        inbox.done(len(items))

    thread = threading.Thread(target=read)
    thread.start()
    inbox.join()
    order.append("joined")
    thread.join(LONG)
    assert order == [["step"], "joined"]


def test_joining_an_empty_inbox_returns():
    Inbox(1).join()


def test_many_threads_lose_and_double_nothing():
    """Four threads put 500 items each of 0 to 6 rows; each thread's arrive in its order."""
    inbox = Inbox(20)
    reader = Reader(inbox)

    def put(thread):
        for number in range(500):
            inbox.put((thread, number), number % 7)

    threads = [threading.Thread(target=put, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG)
    inbox.join()
    inbox.put(None)
    reader.join()
    items = [item for items in reader.taken for item in items]
    assert items.pop() is None
    for thread in range(4):
        assert [number for owner, number in items if owner == thread] == list(range(500))
