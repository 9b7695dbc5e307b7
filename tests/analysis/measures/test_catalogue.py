"""Headers of measures as they are read, and runs of measures with wrong input."""

import re

import pytest

from tracer.analysis.measures.catalogue import measure_named, measure_names
from tracer.analysis.measures.inputs import OTHER, Asked, make_inputs, needed
from tracer.analysis.measures.nulls import NULLS
from tracer.analysis.measures.run import Settings, run_measure
from tracer.analysis.sql import connect, query_text
from tracer.errors import InputError, UnknownRunError


@pytest.mark.parametrize("name", measure_names())
def test_every_measure_says_what_it_is(name):
    """A question, a known null or a reason, relations that exist, keys and values among columns."""
    measure = measure_named(name)
    assert measure.asks.endswith("?")
    assert measure.meaning.endswith(".")
    assert bool(measure.null) != bool(measure.no_null)
    assert measure.null is None or measure.null in NULLS
    assert len(measure.no_null) > 20 or measure.null
    columns = [column.name for column in measure.columns]
    assert set(measure.key) | set(measure.values) <= set(columns)
    assert not set(measure.key) & set(measure.values)
    assert measure.values or measure.no_null
    for relation in measure.reads:
        query_text(f"inputs/{relation.removeprefix(OTHER)}")
    assert all(bind.doc.endswith(".") for bind in measure.binds)


@pytest.mark.parametrize("name", measure_names())
def test_measures_keep_to_the_sql_that_other_engines_have(name):
    """Unnesting and what only DuckDB spells that way is left to ``queries/inputs``."""
    body = "\n".join(
        line for line in measure_named(name).sql.splitlines() if not line.startswith("--")
    )
    strange = re.findall(
        r"\bunnest\b|::|//|\bif\(|\bqualify\b|\bfilter \(|\blist_\w+|\brecursive\b", body
    )
    assert strange == []


def test_a_header_is_read():
    measure = measure_named("expert_load")
    assert measure.asks == "Which experts take most of the load, and which none?"
    assert measure.reads == ("expert_usage", "experts", "model")
    assert measure.binds == ()
    assert measure.key == ("layer_id", "expert_id")
    assert measure.values == ("load", "relative_load")
    assert [(c.name, c.unit) for c in measure.columns][2:4] == [
        ("num_choices", "choices"),
        ("load", "share of the layer's choices"),
    ]
    assert measure.null == "uniform"


def test_relations_come_behind_those_they_read():
    made = needed(["expert_choices", "other_experts"])
    assert (
        made.index("routing_entries") < made.index("routed_tokens") < made.index("expert_choices")
    )
    assert "experts" not in made
    assert needed(["expert_choices", "other_experts"], OTHER) == ["experts"]


@pytest.fixture
def lake(made):
    return made[0]


def test_wrong_input_is_told(lake):
    for name, options, message in (
        ("nothing", {}, "no measure 'nothing'"),
        ("expert_load", {"binds": {"top_p": 1}}, "no option 'top_p'"),
        ("expert_load", {"other_run_id": "r1"}, "takes one run"),
        ("expert_load", {"settings": Settings(tokens="some")}, "unknown tokens 'some'"),
    ):
        with pytest.raises(InputError, match=re.escape(message)):
            run_measure(lake, name, **options)
    with pytest.raises(UnknownRunError):
        run_measure(lake, "expert_load", run_id="r9")


def test_a_scope_without_tokens_is_told(make_lake, request_of):
    lake = make_lake([request_of("q", "law", [{0: {0: 0.5, 1: 0.5}}])])
    with pytest.raises(InputError, match="no complete requests with tokens of 'generated'"):
        run_measure(lake, "expert_load", settings=Settings(tokens="generated"))


def test_what_was_not_recorded_names_the_option(make_lake, request_of):
    lake = make_lake([request_of("q", "law", [{0: {0: 0.5, 1: 0.5}}])])
    con = connect(lake)
    for relation, option in (("expert_logits", "--router-logits"), ("cosine_entries", "weights")):
        with pytest.raises(InputError) as refused:
            make_inputs(con, [relation], Asked(lake.run(), "all", {}))
        assert option in refused.value.hint


def test_the_same_seed_gives_the_same_frame(lake):
    one, two, other = (
        run_measure(lake, "expert_load", settings=Settings(draws=5, seed=seed)).frame
        for seed in (1, 1, 2)
    )
    assert one.equals(two)
    assert not one.equals(other)


def test_some_requests_are_chosen(lake):
    """Of 16 requests 4, the same for the same seed, and all where there are no more."""
    whole = run_measure(lake, "expert_load", settings=Settings(draws=0)).frame
    some = [
        run_measure(lake, "expert_load", settings=Settings(draws=0, requests=4, seed=seed)).frame
        for seed in (0, 0, 1)
    ]
    assert some[0].equals(some[1])
    assert not some[0].equals(some[2])
    assert 0 < some[0]["num_choices"].sum() < whole["num_choices"].sum()
    every = run_measure(lake, "expert_load", settings=Settings(draws=0, requests=16)).frame
    assert every.equals(whole)


def test_domains_are_renamed_and_unlabelled_requests_left_out(make_lake, request_of):
    token = [{0: {0: 0.5, 1: 0.5}}]
    requests = [
        request_of("a", "law", token),
        request_of("b", "none", token),
        request_of("c", "x", token, labels={"subject": "algebra"}),
        request_of("d", "law", token, status="aborted"),
    ]
    lake = make_lake(requests)
    con = connect(lake)
    make_inputs(con, ["expert_usage"], Asked(lake.run(), "all", {"algebra": "math"}))
    assert con.sql("select request_id, domain from scoped_requests order by all").fetchall() == [
        ("a", "law"),
        ("c", "math"),
    ]
