import numpy as np
import pytest

from tracer.store.choices import round_mantissa, sort_choices


def sort_one(ids, weights):
    """Choices of one layer."""
    sorted_ids, sorted_weights = sort_choices(ids[:, None], weights[:, None], 32768)
    return sorted_ids[0], sorted_weights[0]


def test_choices_are_sorted_by_weight_then_id():
    """0.5 of expert 3 before 0.5 of expert 7 before 0.25; negative weights go last."""
    ids = np.array([[7, 1, 3], [2, 0, 5]], dtype=np.int16)
    weights = np.array([[0.5, 0.25, 0.5], [-0.5, 0.0, 2.0]], dtype=np.float32)
    sorted_ids, sorted_weights = sort_one(ids, weights)
    assert sorted_ids.tolist() == [[3, 7, 1], [5, 0, 2]]
    assert sorted_weights.tolist() == [[0.5, 0.5, 0.25], [2.0, 0.0, -0.5]]
    assert (sorted_ids.dtype, sorted_weights.dtype) == (np.int16, np.float32)


def test_sorting_keeps_every_weight_exactly():
    rng = np.random.default_rng(0)
    ids = np.tile(np.arange(8, dtype=np.int16) * 4000, (1000, 1))
    weights = rng.normal(size=(1000, 8)).astype(np.float32)
    sorted_ids, sorted_weights = sort_one(ids, weights)
    assert (np.diff(sorted_weights, axis=-1) <= 0).all()
    back = np.take_along_axis(weights, sorted_ids // 4000, axis=-1)
    assert (back == sorted_weights).all()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1.0, 1.0),
        (1.00390625, 1.0),  # 1 + 2**-8 lies between 1 and 1 + 2**-7: ties go to even
        (1.01171875, 1.015625),  # 1 + 3 * 2**-8: the even neighbour is above
        (0.1, 0.10009765625),
        (0.0, 0.0),
    ],
)
def test_bf16_rounding_is_to_nearest_even(value, expected):
    assert round_mantissa(np.array([value], dtype=np.float32), 16).tolist() == [expected]


@pytest.mark.parametrize("width", [*range(1, 18), 22, 33])
@pytest.mark.parametrize("dropped", [None, 16], ids=["float32", "bfloat16"])
def test_any_number_of_choices_is_sorted(width, dropped):
    """Against NumPy's own sort by two keys; few different weights, so that many are equal."""
    rng = np.random.default_rng(width)
    ids = np.argsort(rng.random((300, width)), axis=-1).astype(np.uint8)
    weights = (rng.integers(-3, 4, size=(300, width)) / 7).astype(np.float32)
    if dropped:
        weights = round_mantissa(weights, dropped)
    order = np.lexsort((ids, -weights), axis=-1)
    sorted_ids, sorted_weights = sort_one(ids, weights)
    assert (sorted_ids == np.take_along_axis(ids, order, axis=-1)).all()
    assert (sorted_weights == np.take_along_axis(weights, order, axis=-1)).all()
    assert sorted_ids.dtype == np.int16


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1.0 + 2**-10, 1.0 + 2**-10),  # 11 significant bits are kept
        (1.0 + 2**-11, 1.0),
        (1.0 + 3 * 2**-11, 1.0 + 2**-9),
        (-100001.0, -100032.0),  # beyond float16, whose range does not apply; steps of 64
    ],
)
def test_rounding_to_the_precision_of_float16(value, expected):
    assert round_mantissa(np.array([value], dtype=np.float32), 13).tolist() == [expected]
