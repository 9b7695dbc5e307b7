"""What the headers of measures say is what the measures give."""

import pytest

from tracer.analysis.measures.catalogue import measure_named, measure_names
from tracer.analysis.measures.inputs import OTHER
from tracer.analysis.measures.nulls import NULLS

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


def test_comments_in_the_body_are_not_of_the_header():
    for name in ("fingerprint_distance", "pruning_stability", "mass_centrality"):
        measure = measure_named(name)
        assert "\n    -- " in measure.sql
        assert measure.order.split(", ")[0] == "layer_id"
        assert all(part.isidentifier() for part in measure.order.split(", "))
