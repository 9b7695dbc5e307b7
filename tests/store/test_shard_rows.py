import dataclasses

import pytest

from tests.store.conftest import make_rows
from tracer.errors import DamagedDataError


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("expert_ids", 4, "expert id 4"),
        ("expert_ids", -1, "expert id -1"),
        ("gate_weights", float("nan"), "not a finite number"),
        ("gate_weights", float("inf"), "not a finite number"),
        ("positions", 9, "positions outside"),
    ],
)
def test_impossible_rows_are_refused(rows, field, value, words):
    array = getattr(rows, field).copy()
    array[..., -1] = value
    with pytest.raises(DamagedDataError, match=words):
        dataclasses.replace(rows, **{field: array}).check(num_experts=4)


def test_an_expert_chosen_twice_is_refused():
    twice = make_rows(choices={0: [[(1, 0.5), (1, 0.25)]], 2: [[(0, 0.5), (1, 0.5)]]})
    with pytest.raises(DamagedDataError, match="same expert twice"):
        twice.check(num_experts=4)
