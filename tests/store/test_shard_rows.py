import dataclasses

import numpy as np
import pytest

from tests.store.conftest import make_rows, together
from tracer.errors import DamagedDataError


def changed(rows, field, place, value):
    array = getattr(rows, field).copy()
    array[place] = value
    return dataclasses.replace(rows, **{field: array})


def with_extras(rows):
    """Two candidates and all four logits of each row."""
    shape = rows.expert_ids.shape[:2]
    return dataclasses.replace(
        rows,
        candidate_ids=np.broadcast_to(np.array([3, 1], np.int16), (*shape, 2)),
        candidate_scores=np.broadcast_to(np.array([0.5, 0.25], np.float32), (*shape, 2)),
        router_logits=np.zeros((*shape, 4), np.float16),
    )


@pytest.fixture
def batch():
    """Requests a and b of three rows each, all that can be recorded."""
    return with_extras(together(make_rows("a"), make_rows("b")))


def test_what_a_router_can_produce_is_taken(batch):
    batch.check(num_experts=4)
    make_rows().check(num_experts=4)


@pytest.mark.parametrize(
    ("field", "place", "value", "words"),
    [
        ("expert_ids", (4, 1, 0), 4, "request 'b' has expert id 4; ids run from 0 to 3"),
        ("expert_ids", (0, 0, 1), -1, "request 'a' has expert id -1"),
        ("expert_ids", (3, 0), 1, "request 'b' chooses the same expert twice"),
        ("gate_weights", (3, 0, 1), np.nan, "request 'b' has a gate weight that is not a finite"),
        ("gate_weights", (2, 1, 0), np.inf, "request 'a' has a gate weight that is not a finite"),
        ("positions", 5, 9, "request 'b' has positions outside the request or out of order"),
        ("positions", 3, -1, "request 'b' has positions outside"),
        ("positions", 1, 0, "request 'a' has positions outside the request or out of order"),
        ("candidate_ids", (5, 1, 0), 4, "request 'b' has expert id 4"),
        ("candidate_ids", (0, 1, 0), 1, "request 'a' has among its candidates the same expert"),
        ("candidate_scores", (1, 1, 1), 0.75, "request 'a' has candidates that are not by score"),
        ("candidate_scores", (4, 0, 0), np.inf, "request 'b' has a candidate's score that is"),
        ("router_logits", (4, 0, 2), np.nan, "request 'b' has a router logit that is not"),
    ],
)
def test_what_no_router_produces_is_refused(batch, field, place, value, words):
    with pytest.raises(DamagedDataError, match=words):
        changed(batch, field, place, value).check(num_experts=4)


def test_a_byte_of_ones_is_no_expert():
    """What recorders fill their buffers with is beyond every expert."""
    rows = make_rows()
    missing = changed(
        dataclasses.replace(rows, expert_ids=rows.expert_ids.astype(np.uint8)),
        "expert_ids",
        (1, 1),
        0xFF,
    )
    with pytest.raises(DamagedDataError, match="request 'q' has expert id 255"):
        missing.check(num_experts=255)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"positions": np.zeros(2, np.int32)}, r"positions has shape \(2,\), the requests have 3"),
        ({"gate_weights": np.zeros((3, 2, 1), np.float32)}, "gate_weights has shape"),
        ({"layer_ids": (0,)}, "expert_ids has shape"),
        ({"router_logits": np.zeros((3, 2, 3), np.float32)}, "router_logits has shape"),
        ({"candidate_ids": np.zeros((3, 2, 1), np.int16)}, "come together"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(changes, words):
    with pytest.raises(DamagedDataError, match=words):
        dataclasses.replace(make_rows(), **changes).check(num_experts=4)


def test_weights_may_come_as_the_bits_of_bfloat16():
    """0x3f00 is 0.5 and 0xbe80 is -0.25."""
    bits = np.full((3, 2, 2), 0x3F00, dtype=np.uint16)
    bits[:, :, 1] = 0xBE80
    _, (_, weights) = dataclasses.replace(make_rows(), gate_weights=bits).choices(num_experts=4)
    assert weights.tolist() == [[0.5, -0.25]] * 3
    assert weights.dtype == np.float32
