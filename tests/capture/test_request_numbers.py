"""Numbers of open requests: reused, never shared, forgotten in the end."""

import pytest

pytest.importorskip("torch", reason="needs vLLM: make setup")

from tracer.capture.request_numbers import RequestNumbers
from tracer.capture.row_log import NOBODY


def test_a_number_is_stable_while_the_request_is_open():
    numbers = RequestNumbers()
    first = numbers.of(["a", "b"]).tolist()
    assert sorted(first) == [0, 1]
    assert numbers.of(["b", "a"]).tolist() == first[::-1]


def test_a_closed_number_is_given_to_another():
    numbers = RequestNumbers()
    numbers.of(["a", "b"])
    assert numbers.close(["a"]) == [0]
    assert numbers.of(["c", "b"]).tolist() == [0, 1]


def test_late_rows_of_a_closed_request_are_nobodys():
    numbers = RequestNumbers()
    numbers.of(["a"])
    numbers.close(["a"])
    assert numbers.of(["a"]).tolist() == [NOBODY]
    numbers.end(["a"])
    assert len(numbers) == 0


def test_an_ended_request_keeps_its_rows_until_closed():
    numbers = RequestNumbers()
    numbers.of(["a"])
    numbers.end(["a"])
    assert numbers.of(["b"]).tolist() == [1]
    assert numbers.close(["a"]) == [0]
    assert len(numbers) == 1


def test_a_muted_request_is_nobodys_until_it_ends():
    numbers = RequestNumbers()
    numbers.mute(["a"])
    assert numbers.of(["a", "b"]).tolist() == [NOBODY, 0]
    numbers.end(["a"])
    assert len(numbers) == 1


def test_nothing_is_remembered_of_requests_that_are_over():
    """Ten thousand requests, two at a time: no more than three are known at once."""
    numbers = RequestNumbers()
    highest = 0
    for i in range(10_000):
        numbers.of([f"r{i}", f"r{i + 1}"])
        highest = max(highest, *numbers.close([f"r{i}"]))
        numbers.end([f"r{i}"])
        assert len(numbers) <= 3
    assert highest <= 2


def test_ends_of_unknown_requests_are_ignored():
    numbers = RequestNumbers()
    numbers.end(["never seen"])
    assert len(numbers) == 0
