"""Requests compared in arrays find those that the text of the relation finds."""

import numpy as np
import pytest
from polars.testing import assert_frame_equal

from tracer.analysis.measures.inputs import Asked, make_inputs
from tracer.analysis.measures.nearest import nearest_places
from tracer.analysis.measures.redraw import Redraw, drawn_requests
from tracer.analysis.sql import connect, query_text

KEY = ["layer_id", "request_id"]


def same(con):
    """The rows that are there, as the text gives them."""
    found = con.sql("from nearest_requests").pl()
    expected = con.sql(query_text("inputs/nearest_requests")).pl().sort(KEY)
    assert_frame_equal(found, expected)
    return found


@pytest.mark.parametrize("cells", [1, 40, 1 << 22])
@pytest.mark.parametrize("tokens", ["all", "generated"])
def test_arrays_find_what_the_text_finds(made, monkeypatch, cells, tokens):
    """Also of copies, which are no others of each other, and with the recorded ones put back."""
    monkeypatch.setattr("tracer.analysis.measures.nearest._CELLS", cells)
    lake, _ = made
    con = connect(lake)
    make_inputs(con, ["nearest_requests"], Asked(lake.run(), tokens, {}), keep=True)
    before = same(con)
    assert before.height > 20
    redraw = Redraw(con)
    drawn_requests(redraw, np.random.default_rng(1))
    redraw.count_again()
    assert not same(con).equals(before)
    redraw.restore()
    assert same(con).equals(before)
    con.close()


def test_ties_take_the_first_and_copies_no_copy():
    """Rows 0, 1 and 3 are alike, 0 and 1 copies; 2 shares nothing with anyone."""
    units = np.array([[1.0, 0, 0], [1, 0, 0], [0, 1, 0], [1 - 1e-14, 0, 1e-7]])
    origin = np.array([5, 5, 6, 7])
    assert nearest_places(units, origin).tolist() == [3, 3, 0, 0]
    assert nearest_places(units[:2], origin[:2]).tolist() == [-1, -1]
    assert nearest_places(units[:0], origin[:0]).tolist() == []
