"""Own rows found again in batches laid out by hand; against vLLM's recorder: tests/engine."""

from itertools import chain

import pytest

from tracer.capture.layout import OwnRows, own_rows
from tracer.errors import UnsupportedModelError

PADDING = "padding"
# Real tokens of each data-parallel rank, and what each is padded to (CUDA graphs: all alike).
BATCHES = {
    "one rank": ([5], [5]),
    "ranks of different size": ([3, 5, 1], [3, 5, 1]),
    "ranks padded alike": ([3, 5, 1], [8, 8, 8]),
    "a rank without requests runs one dummy token": ([0, 4], [1, 4]),
    "divisible": ([4, 8], [4, 8]),
}


def batch_of(rank, real, padded):
    """A rank's batch in order: its tokens by name, then padding."""
    return [(rank, number) for number in range(real)] + [PADDING] * (padded - real)


def split(rows, shares):
    """Equal runs of the rows, padded at the end so that they come out even."""
    size = -(-len(rows) // shares)
    rows = rows + [PADDING] * (size * shares - len(rows))
    return [rows[share * size : (share + 1) * size] for share in range(shares)]


def routers_see(batches, *, dispatched, shares):
    """Rows of the router on each [data-parallel rank][tensor-parallel rank of a share]."""
    parts = [split(batch, shares) for batch in batches]
    if not dispatched:
        return parts
    gathered = list(chain.from_iterable(chain.from_iterable(parts)))
    return [[gathered] * shares for _ in batches]


def recorded(rank, batches, *, dispatched, shares):
    """What the first tensor-parallel rank keeps of one router call."""
    seen = routers_see(batches, dispatched=dispatched, shares=shares)[rank]
    rows = own_rows(
        len(seen[0]), [len(b) for b in batches], rank=rank, dispatched=dispatched, shares=shares
    )
    source = list(chain.from_iterable(seen)) if rows.gather else seen[0]
    return source[rows.begin : rows.end]


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("dispatched", [False, True], ids=["local", "gathered"])
@pytest.mark.parametrize("shares", [1, 2, 4])
def test_each_rank_gets_its_own_tokens_in_order(batch, dispatched, shares):
    real, padded = BATCHES[batch]
    batches = [
        batch_of(rank, tokens, size)
        for rank, (tokens, size) in enumerate(zip(real, padded, strict=True))
    ]
    kept = [
        recorded(rank, batches, dispatched=dispatched, shares=shares) for rank in range(len(real))
    ]
    assert kept == batches
    everything = [row for rows in kept for row in rows if row is not PADDING]
    assert len(everything) == len(set(everything)) == sum(real)


@pytest.mark.parametrize("dispatched", [False, True], ids=["local", "gathered"])
@pytest.mark.parametrize("shares", [1, 2])
@pytest.mark.parametrize("parts", [2, 3])
def test_micro_batches_fill_the_batch_from_their_offsets(dispatched, shares, parts):
    """All ranks are padded to 11 tokens and split at the same places; the last part is longer."""
    real, size = [11, 7], 11
    batches = [batch_of(rank, tokens, size) for rank, tokens in enumerate(real)]
    begins = [size // parts * part for part in range(parts)]
    ends = [*begins[1:], size]
    for rank in range(len(real)):
        buffer = ["unwritten"] * size
        for begin, end in zip(begins, ends, strict=True):
            rows = recorded(
                rank, [b[begin:end] for b in batches], dispatched=dispatched, shares=shares
            )
            buffer[begin : begin + len(rows)] = rows
        assert buffer == batches[rank]


def test_rows_of_a_share_are_the_only_ones_that_need_peers():
    tokens = [3, 5]
    local = own_rows(5, tokens, rank=1, dispatched=False, shares=1)
    share = own_rows(3, tokens, rank=1, dispatched=False, shares=2)
    gathered = own_rows(10, tokens, rank=1, dispatched=True, shares=2)
    assert (local, share) == (OwnRows(0, 5), OwnRows(0, 5, gather=True))
    # Rank 0's three tokens were padded to four.
    assert gathered == OwnRows(4, 9)


@pytest.mark.parametrize(
    ("num_seen", "dispatched", "shares"), [(8, False, 1), (5, True, 1), (8, True, 2), (5, False, 2)]
)
def test_rows_that_do_not_fit_the_layout_are_refused(num_seen, dispatched, shares):
    with pytest.raises(UnsupportedModelError, match=f"saw {num_seen} rows where"):
        own_rows(num_seen, [3, 5], rank=1, dispatched=dispatched, shares=shares)
