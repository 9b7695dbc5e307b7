"""Every measure and relation by Spark gives what DuckDB gives, to 1e-9: `make test-readers`."""

import dataclasses
import os

import polars as pl
import pytest
from polars.testing import assert_frame_equal
from pyspark.sql import SparkSession

from tests.analysis.conftest import make_lake  # noqa: F401 - a fixture
from tests.analysis.measures.conftest import (  # noqa: F401 - fixtures
    LAYERS,
    NUM_EXPERTS,
    SIZES,
    TOP_K,
    TOP_M,
    made_requests,
    together,
)
from tracer.analysis.measures.catalogue import measure_named, measure_names
from tracer.analysis.measures.inputs import Asked, make_inputs
from tracer.analysis.measures.run import Settings, run_measure
from tracer.analysis.sql import connect
from tracer.errors import InputError
from tracer.schema import query_path
from tracer.store.lake import Lake

# Options of measures that find nothing in short requests otherwise.
SMALL = {
    "prefix_similarity": {"step": 2, "longest": 4},
    "token_roles": {"least_count": 1, "least_domains": 1, "least_rate": 0.5},
}
# Measures that are taken of a lake of many requests, too.
COMMITTEE = ["eci", "committee", "committee_coverage", "domain_overlap", "expert_load"]
RELATIONS = sorted(path.stem for path in query_path("inputs/any").parent.glob("*.sql"))


@pytest.fixture(scope="module", autouse=True)
def spark():
    session = (
        # Small data and many plans: compiling each costs more than running it.
        SparkSession.builder.master("local[1]")
        .config("spark.ui.enabled", "false")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.sql.shuffle.partitions", "1")
        .config("spark.sql.codegen.wholeStage", "false")
        .config("spark.sql.codegen.factoryMode", "NO_CODEGEN")
        .config("spark.sql.adaptive.enabled", "false")
        .config("spark.driver.extraJavaOptions", "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC")
        .getOrCreate()
    )
    yield session
    session.stop()


@pytest.fixture
def two_runs(make_lake, together):  # noqa: F811
    """Two runs with logits, router matrices and token ids, over the same requests."""
    shape = {"num_experts": NUM_EXPERTS, "top_k": TOP_K, "top_m": TOP_M}
    matrix = [[(3 * e + d) % 7 - 2.5 for d in range(4)] for e in range(NUM_EXPERTS)]
    routers = dict.fromkeys(LAYERS, matrix)
    return together(
        make_lake(made_requests(3, planted=True), routers=routers, **shape),
        make_lake(made_requests(4, planted=False), routers=routers, run_id="r2", **shape),
    )


@pytest.mark.parametrize("name", measure_names())
def test_a_measure(two_runs, name):
    other = "r2" if measure_named(name).compares else None
    both(two_runs, name, "all", run_id="r1", other_run_id=other, binds=SMALL.get(name))


@pytest.mark.parametrize("name", COMMITTEE)
def test_a_measure_of_a_real_lake(name):
    """Of 20 requests, since some measures compare every two."""
    both(Lake.open(os.environ["TRACER_READERS_LAKE"]), name, "all", requests=20)


def both(lake, name, tokens, *, requests=None, **runs):
    settings = Settings(tokens=tokens, draws=0, requests=requests)
    expected = run_measure(lake, name, settings=settings, **runs).frame
    found = run_measure(lake, name, settings=settings, engine="spark", **runs).frame
    assert found.columns == expected.columns
    assert expected.is_empty() == (name == "template_tokens")  # requests share no token
    same(found, expected, list(measure_named(name).key))


def same(found, expected, key):
    frames = [plain(frame).sort(key) if key else plain(frame) for frame in (found, expected)]
    assert_frame_equal(*frames, check_dtypes=False, rel_tol=1e-9, abs_tol=1e-12)


def plain(frame):
    """Integers and floats of one width each; what is not a number is null."""
    integers = pl.selectors.integer().cast(pl.Int64)
    return frame.with_columns(integers, pl.selectors.float().cast(pl.Float64).fill_nan(None))


@pytest.mark.parametrize("relation", RELATIONS)
def test_a_relation(two_runs, monkeypatch, relation):
    con = connect(two_runs)
    make_inputs(con, [relation], Asked(two_runs.run("r1"), "last-prompt", {}))
    expected = con.sql(f"from {relation}").pl()
    con.close()
    text = f"-- of the test\nselect {', '.join(expected.columns)} from {relation}"
    read = dataclasses.replace(measure_named("eci"), reads=(relation,), sql=text)
    monkeypatch.setattr("tracer.analysis.measures.run.measure_named", lambda name: read)
    settings = Settings(tokens="last-prompt", draws=0)
    found = run_measure(two_runs, "eci", run_id="r1", engine="spark", settings=settings).frame
    assert found.height == expected.height > 0
    key = [name for name in expected.columns if not expected.schema[name].is_nested()]
    same(found, expected, key)


def test_a_master_that_is_none(two_runs, spark):
    """Last: the session of these tests ends first, for there is one to a process."""
    spark.stop()
    with pytest.raises(InputError, match="Spark does not start: Could not parse Master URL"):
        run_measure(two_runs, "eci", run_id="r1", engine="spark", master="nothing")
    settings = Settings(draws=0)
    found = run_measure(
        two_runs, "eci", run_id="r1", engine="spark", master="local[1]", settings=settings
    )
    assert found.frame.height == len(LAYERS) * len(SIZES) * NUM_EXPERTS
    assert SparkSession.getActiveSession() is None
