"""Records in, records of finished requests out: order, last write, holes, what stays."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs vLLM: make setup")

from tracer.capture import row_log  # noqa: E402
from tracer.capture.row_format import Field, RowFormat  # noqa: E402
from tracer.capture.row_log import NOBODY, RowLog  # noqa: E402

FORMAT = RowFormat(
    2,
    (
        Field("expert_ids", torch.uint8, 3),
        Field("position", torch.int32, 1, per_layer=False),
        Field("token_id", torch.int32, 1, per_layer=False),
    ),
)


@pytest.fixture(autouse=True, params=[1, 5, 1 << 22], ids=["one row", "few rows", "one chunk"])
def chunk_bytes(request, monkeypatch):
    """Chunks of one record, of a few, and one chunk for all."""
    size = request.param * FORMAT.row_bytes if request.param < 100 else request.param
    monkeypatch.setattr(row_log, "_CHUNK_BYTES", size)


def records(*tokens):
    """Records of (position, token); every expert id is the token's."""
    rows = np.zeros((len(tokens), FORMAT.row_bytes), dtype=np.uint8)
    for row, (position, token) in enumerate(tokens):
        FORMAT.array(rows, "position")[row] = position
        FORMAT.array(rows, "token_id")[row] = token
        FORMAT.array(rows, "expert_ids")[row] = token % 256
    return rows


def owners(*numbers):
    return np.array(numbers, dtype=np.int32)


def tokens(taken):
    return FORMAT.array(taken.rows, "token_id")[:, 0].tolist()


def test_rows_come_by_request_and_position():
    log = RowLog(FORMAT)
    log.append(records((0, 10), (0, 20), (1, 21)), owners(0, 1, 1))
    log.append(records((2, 22), (1, 11)), owners(1, 0))
    taken = log.take([1, 0], [3, 2])
    assert tokens(taken) == [20, 21, 22, 10, 11]
    assert taken.seen.all()
    assert taken.starts.tolist() == [0, 3, 5]
    assert FORMAT.array(taken.rows, "expert_ids")[1].tolist() == [[21] * 3] * 2
    assert log.num_rows == 0


def test_what_is_not_taken_stays():
    log = RowLog(FORMAT)
    log.append(records((0, 10), (0, 20), (1, 11), (0, 30)), owners(0, 1, 0, 2))
    assert tokens(log.take([1], [1])) == [20]
    assert log.num_rows == 3
    log.append(records((2, 12)), owners(0))
    assert tokens(log.take([0, 2], [3, 1])) == [10, 11, 12, 30]


def test_the_last_record_of_a_position_wins():
    log = RowLog(FORMAT)
    log.append(records((0, 10), (1, 99), (2, 98)), owners(0, 0, 0))  # two drafts
    log.append(records((1, 11)), owners(0))  # rejected: replaced, and one beyond the end
    assert tokens(log.take([0], [2])) == [10, 11]


def test_a_hole_is_told_from_a_record():
    log = RowLog(FORMAT)
    log.append(records((0, 10), (2, 12)), owners(0, 0))
    assert log.take([0], [3]).seen.tolist() == [True, False, True]


def test_rows_of_nobody_are_not_kept():
    log = RowLog(FORMAT)
    log.append(records((0, 10), (0, 20)), owners(NOBODY, 0))
    log.take([5], [0])
    assert log.num_rows == 1


def test_an_empty_log_has_nothing_to_take():
    taken = RowLog(FORMAT).take([0], [2])
    assert taken.seen.tolist() == [False, False]


def test_many_requests_in_random_order_are_all_found():
    """200 requests of 1 to 40 tokens, shuffled as a scheduler might."""
    random = np.random.default_rng(0)
    lengths = random.integers(1, 40, 200)
    rows = [(r, p) for r, length in enumerate(lengths) for p in range(length)]
    order = random.permutation(len(rows))
    log = RowLog(FORMAT)
    for part in np.array_split(order, 37):
        log.append(
            records(*[(rows[i][1], rows[i][0] * 100 + rows[i][1]) for i in part]),
            owners(*[rows[i][0] for i in part]),
        )
    some = random.permutation(200)[:120].tolist()
    taken = log.take(some, lengths[some].tolist())
    assert taken.seen.all()
    assert tokens(taken) == [r * 100 + p for r in some for p in range(lengths[r])]
    rest = [r for r in range(200) if r not in some]
    assert tokens(log.take(rest, lengths[rest].tolist())) == [
        r * 100 + p for r in rest for p in range(lengths[r])
    ]


def test_without_what_was_not_seen():
    log = RowLog(FORMAT)
    log.append(records((1, 11), (3, 13), (0, 20), (1, 21)), owners(0, 0, 1, 1))
    taken = log.take([0, 1], [4, 2])
    compact = taken.compact()
    assert len(taken.rows) == 6
    assert compact.rows.tolist() == taken.rows[taken.seen].tolist()
    assert compact.compact() is compact
    places = np.array([1, 4, 5])
    assert compact.of_places(places).tolist() == taken.of_places(places).tolist()
    kept = np.flatnonzero(taken.seen)
    assert compact.of_places(kept) is compact.rows
    assert FORMAT.array(taken.of_places(kept), "token_id")[:, 0].tolist() == [11, 13, 20, 21]
