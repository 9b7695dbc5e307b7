"""Every measure by Polars gives the points that DuckDB gives, or says what Polars cannot run."""

import dataclasses
import re
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from tests.analysis.measures.conftest import NUM_EXPERTS, TOP_K, made_requests
from tracer.analysis.measures.catalogue import measure_named, measure_names
from tracer.analysis.measures.inputs import Asked, make_inputs
from tracer.analysis.measures.run import Settings, run_measure
from tracer.analysis.sql import connect
from tracer.errors import InputError
from tracer.schema import query_path

MUST_RUN = {"expert_load", "eci", "committee", "committee_coverage", "domain_overlap"}
PAGE = Path(__file__).parents[3] / "docs" / "queries.md"
(LINE,) = re.findall(r"^Polars' SQL cannot run .*", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
REFUSED = set(re.findall(r"`(\w+)`", LINE))


@pytest.fixture
def two_runs(made, make_lake, together):
    other = made_requests(4, planted=True)
    return together(made[0], make_lake(other, num_experts=NUM_EXPERTS, top_k=TOP_K, run_id="r2"))


@pytest.mark.parametrize("name", measure_names())
def test_polars_gives_the_same_points(two_runs, name):
    measure = measure_named(name)
    given = {"run_id": "r1", "other_run_id": "r2" if measure.compares else None}
    for tokens in ("all", "generated"):
        given["settings"] = Settings(tokens=tokens, draws=0, requests=9)
        expected = run_measure(two_runs, name, **given).frame
        found = by_polars(two_runs, name, given)
        assert (found is None) == (name in REFUSED), "`make docs` writes which are refused"
        if found is None:
            assert name not in MUST_RUN
            return
        assert found.columns == expected.columns
        same(found, expected, list(measure.key))


def by_polars(lake, name, given):
    """The rows; None where Polars cannot run the measure and says so."""
    try:
        return run_measure(lake, name, engine="polars", **given).frame
    except InputError as error:
        if f"Polars' SQL cannot run the measure '{name}'" not in str(error):
            raise
    return None


def same(found, expected, key):
    frames = [plain(frame).sort(key) if key else plain(frame) for frame in (found, expected)]
    assert_frame_equal(*frames, check_dtypes=False, rel_tol=1e-9, abs_tol=1e-12)


@pytest.mark.parametrize(
    "relation", [path.stem for path in query_path("inputs/any").parent.glob("*.sql")]
)
@pytest.mark.parametrize("tokens", ["all", "last-prompt"])
def test_polars_makes_the_same_relations(two_runs, monkeypatch, relation, tokens):
    con = connect(two_runs)
    run = two_runs.run("r1")
    make_inputs(con, [relation], Asked(run, tokens, {}))
    columns = con.sql(f"from {relation}").columns
    expected = con.sql(f"from {relation}").pl()
    con.close()
    text = f"-- of the test\nselect {', '.join(columns)} from {relation}"
    read = dataclasses.replace(measure_named("eci"), reads=(relation,), sql=text)
    monkeypatch.setattr("tracer.analysis.measures.run.measure_named", lambda name: read)
    settings = Settings(tokens=tokens, draws=0)
    found = run_measure(two_runs, "eci", run_id="r1", engine="polars", settings=settings).frame
    assert found.height == expected.height > 0
    same(found, expected, [name for name in columns if not expected.schema[name].is_nested()])


def plain(frame):
    """Integers and floats of one width each; what is not a number is null."""
    integers = pl.selectors.integer().cast(pl.Int64)
    return frame.with_columns(integers, pl.selectors.float().cast(pl.Float64).fill_nan(None))


def test_draws_are_left_out_and_that_is_told(made):
    found = run_measure(made[0], "expert_load", engine="polars", settings=Settings(draws=9))
    assert found.notes == ("polars takes the measure once, so there are no chance levels.",)
    assert found.frame.columns == [column.name for column in found.measure.columns]


def test_what_polars_cannot_run_is_named(made, monkeypatch):
    odd = dataclasses.replace(
        measure_named("eci"), sql="-- x: y\nselect * from experts qualify rank(1, 2) over () = 1"
    )
    monkeypatch.setattr("tracer.analysis.measures.run.measure_named", lambda name: odd)
    with pytest.raises(InputError, match=r"Polars' SQL cannot run the measure 'eci', in its own"):
        run_measure(made[0], "eci", engine="polars", settings=Settings(draws=0))


def test_an_unknown_engine(made):
    with pytest.raises(InputError, match="no engine 'sqlite'"):
        run_measure(made[0], "eci", engine="sqlite")
