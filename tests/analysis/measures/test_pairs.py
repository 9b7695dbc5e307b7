"""Pairs of experts counted in arrays are those that the text of the relation counts."""

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from tracer.analysis.measures.inputs import Asked, make_inputs
from tracer.analysis.measures.nulls import NULLS
from tracer.analysis.measures.pairs import PairCounts
from tracer.analysis.measures.redraw import Redraw, drawn_requests
from tracer.analysis.sql import connect, query_text
from tracer.errors import DamagedDataError

KEY = ["layer_id", "expert_id", "second_expert_id"]


@pytest.fixture
def counted(made):
    """Lets the relation be made; gives a connection, to be compared by ``same``."""
    lake, _ = made
    connections = []

    def count(tokens="all", **given):
        con = connect(lake)
        connections.append(con)
        make_inputs(con, ["expert_pairs"], Asked(lake.run(), tokens, {}), **given)
        return con

    yield count
    for con in connections:
        con.close()


def same(con):
    """The rows that are there, as the text gives them."""
    found = con.sql("from expert_pairs").pl()
    expected = con.sql(query_text("inputs/expert_pairs")).pl().sort(KEY)
    assert_frame_equal(found, expected, check_dtypes=True)
    assert found["num_tokens"].min() > 0
    return found


@pytest.mark.parametrize("rows", [1, 7, 65_536])
@pytest.mark.parametrize("tokens", ["all", "last-prompt"])
def test_arrays_count_what_the_text_counts(counted, monkeypatch, rows, tokens):
    monkeypatch.setattr("tracer.analysis.measures.pairs._ROWS", rows)
    assert same(counted(tokens)).height > 15


@pytest.mark.parametrize("draw", [NULLS["swaps"], drawn_requests])
def test_pairs_follow_what_is_drawn(counted, draw):
    con = counted(keep=True)
    before = same(con)
    redraw = Redraw(con)
    draw(redraw, np.random.default_rng(1))
    redraw.count_again()
    assert not same(con).equals(before)
    redraw.restore()
    assert same(con).equals(before)


def rows_of(layers, ids):
    types = {"layer_id": pl.Int16, "expert_ids": pl.List(pl.Int16)}
    return pl.DataFrame({"layer_id": layers, "expert_ids": ids}, schema=types)


def test_layers_may_come_in_any_order_and_in_parts():
    """Layer 2: {0, 3} twice and {1, 0}; layer 9: {3, 1}."""
    counts = PairCounts(4, 2)
    counts.add(rows_of([9, 2, 2], [[3, 1], [0, 3], [1, 0]]))
    counts.add(rows_of([], []))
    counts.add(rows_of([2], [[3, 0]]))
    assert counts.frame().rows() == [(2, 0, 1, 1), (2, 0, 3, 2), (9, 1, 3, 1)]


@pytest.mark.parametrize("rows", [rows_of([], []), rows_of([1, 2], [[0], [3]])])
def test_a_token_of_one_choice_has_no_pair(rows):
    counts = PairCounts(4, 1)
    counts.add(rows)
    assert counts.frame().rows() == []
    assert counts.frame().columns == [*KEY, "num_tokens"]


@pytest.mark.parametrize("ids", [[[0, 4]], [[0, -1]], [[0, 1, 2]], [[0]], [[0, 1], [2]], [[]]])
def test_choices_that_no_router_makes_are_damage(ids):
    """Of four experts, k = 2."""
    with pytest.raises(DamagedDataError, match="other than 2 of 4 experts"):
        PairCounts(4, 2).add(rows_of([1] * len(ids), ids))
