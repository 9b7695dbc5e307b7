"""What the headers of measures say is what the measures give."""

import math
import re

import pytest

from tracer.analysis.measures.catalogue import measure_named, measure_names
from tracer.analysis.measures.inputs import OTHER
from tracer.analysis.measures.nulls import NULLS
from tracer.analysis.sql import query_text, split_header
from tracer.schema import query_path

# Options of measures that find nothing in short requests otherwise.
SMALL = {
    "prefix_similarity": {"step": 2, "longest": 4},
    "token_roles": {"least_count": 1, "least_domains": 1, "least_rate": 0.5},
}


@pytest.mark.parametrize("made", ["planted"], indirect=True)
@pytest.mark.parametrize("name", measure_names())
def test_a_measure_gives_what_its_header_says(pair, take, name):
    """Columns in order; keys tell rows apart; values are columns; nulls and reads exist."""
    measure = measure_named(name)
    compares = any(relation.startswith(OTHER) for relation in measure.reads)
    binds = SMALL.get(name, {})
    found = take(pair[0], name, other_run_id="r2" if compares else None, **binds)
    assert found.is_empty() == (name == "template_tokens")  # the requests share no token
    assert found.columns == [column.name for column in measure.columns]
    assert found.select(measure.key).is_duplicated().sum() == 0
    assert set(measure.values) <= set(found.columns)
    assert measure.null in NULLS or measure.no_null
    assert set(measure.jumps) <= set(measure.values)
    for column in measure.columns:
        if column.name in measure.values and not found.is_empty():
            low, high = column.bounds
            values = found[column.name].drop_nulls().cast(float)
            assert values.is_between(low - 1e-9, high + 1e-9).all()


def fields_of(part):
    """What the header of a part says, names by its word; and its steps."""
    header, body = split_header(query_text(f"parts/{part}"))
    text = re.sub(r"\n-- {9}", " ", "\n".join(header))
    found = dict(re.findall(r"^-- (behind|reads|binds|yields)  +(.+)$", text, re.MULTILINE))
    fields = {word: names.split(", ") for word, names in found.items()}
    return {word: [] if names == ["none"] else names for word, names in fields.items()}, body


PARTS = sorted(path.stem for path in query_path("parts/any").parent.glob("*.sql"))


@pytest.mark.parametrize("name", measure_names())
def test_a_measure_names_what_its_parts_need(name):
    """Relations that they read and options that they bind are its own; their order is right."""
    measure = measure_named(name)
    binds = {f"${bind.name}" for bind in measure.binds}
    for place, part in enumerate(measure.parts):
        fields, _ = fields_of(part)
        assert set(fields["reads"]) <= set(measure.reads)
        assert set(fields["binds"]) <= binds
        for needed in fields.get("behind", []):  # one of several that make the same step
            assert set(needed.split(" or ")) & set(measure.parts[:place])
    steps = re.findall(r"^(?:with )?(\w+) as \($", measure.sql, re.MULTILINE)
    assert len(steps) == len(set(steps))


@pytest.mark.parametrize("part", PARTS)
def test_a_part_is_shared_and_yields_the_steps_that_it_names(part):
    fields, body = fields_of(part)
    assert re.findall(r"^(\w+) as \($", body, re.MULTILINE) == fields["yields"]
    alike = {other for other in PARTS if fields_of(other)[0]["yields"] == fields["yields"]}
    users = [name for name in measure_names() if alike & set(measure_named(name).parts)]
    assert len(users) > 1
    relations = {path.stem for path in query_path("inputs/any").parent.glob("*.sql")}
    relations |= {OTHER + relation for relation in relations}
    used = set(re.findall(r"(?:from|join) (\w+)", body))
    assert used & relations == set(fields["reads"])
    others = " or ".join(fields.get("behind", [])).split(" or ")
    steps = {step for other in others if other for step in fields_of(other)[0]["yields"]}
    assert used - relations <= steps | set(fields["yields"])


def test_the_steps_of_parts_stand_before_those_of_the_measure():
    """In a measure that has steps of its own, and in one that has none."""
    for name, own in (("stability_score", "spreads as ("), ("committee", "select\n    points.")):
        measure = measure_named(name)
        places = [measure.sql.index(f"\n-- parts/{part}: ") for part in measure.parts]
        assert places == sorted(places)
        assert places[-1] < measure.sql.index(f"\n{own}")
        assert len(re.findall(r"\bwith$", measure.sql, re.MULTILINE)) == 1


def test_comments_in_the_body_are_not_of_the_header():
    for name in ("fingerprint_distance", "pruning_stability", "mass_centrality"):
        measure = measure_named(name)
        assert "\n    -- " in measure.sql
        assert measure.order.split(", ")[0] == "layer_id"
        assert all(part.isidentifier() for part in measure.order.split(", "))


@pytest.mark.parametrize(
    ("measure", "value", "bounds"),
    [
        ("expert_load", "load", (0, 1)),
        ("expert_load", "relative_load", (0, math.inf)),
        ("load_balance", "max_violation", (0, math.inf)),
        ("co_activation", "phi", (-1, 1)),
        ("co_activation", "lift", (0, math.inf)),
        ("dirichlet_fit", "distance", (0, 1 / 3)),
        ("domain_mutual_information", "mutual_information", (0, math.inf)),
        ("domain_mutual_information", "normalised_information", (0, 1)),
        ("usage_similarity", "between_similarity", (-1, 1)),
        ("usage_similarity", "difference", (-math.inf, math.inf)),
        ("cache_hits", "gain", (-math.inf, math.inf)),
        ("usage_drift", "entropy_change", (-math.inf, math.inf)),
        ("depth_collapse", "since_first_layer", (-math.inf, math.inf)),
        ("domain_overlap", "jaccard", None),
        ("committee_coverage", "coverage", None),
    ],
)
def test_bounds_are_told_by_units(measure, value, bounds):
    """None where a value moves in jumps and keeps plain percentiles."""
    assert measure_named(measure).bounds_of(value) == pytest.approx(bounds)
