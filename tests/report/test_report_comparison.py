"""Two runs side by side, by hand."""

import dataclasses

from tracer.report.comparison import compare_audits, comparison_charts, comparison_table
from tracer.report.html import render_report


def other_run(audit):
    """Layers 1 and 2 of the audit: 1 keeps {0} and gains 5 and 7; 2 has {3} in place of {0, 1}."""
    first, second, _ = audit.layers
    layers = [
        dataclasses.replace(first, committee=(0, 5, 7), coverage=0.75),
        dataclasses.replace(second, committee=(3,), coverage=0.5),
    ]
    kept = [row for row in audit.contributions if row.layer_id != 4]
    pairs = [row for row in audit.overlaps if row.layer_id != 4]
    return dataclasses.replace(
        audit, run_id="run-2", layers=layers, contributions=kept, overlaps=pairs
    )


def test_members_are_kept_gone_or_new(audit):
    found = compare_audits(audit, other_run(audit), same_model=True)

    assert [(x.layer_id, x.kept, x.gone, x.come) for x in found.layers] == [
        (1, (0,), (5, 7), ()),
        (2, (), (3,), (0, 1)),
        (4, (), (), ()),
    ]
    assert [x.coverage_difference for x in found.layers] == [-0.125, 0.125, None]
    assert [x.jaccard for x in found.layers] == [1 / 3, 0, None]
    assert [(x.lift, x.other_lift) for x in found.layers[:2]] == [(1.25, 1.5), (1.25, 1.0)]
    assert found.layers[2].lift == 0.3333 / 0.5
    assert found.cautions == ("the layers",)
    assert found.summary == (
        "2 layers are in both runs. The committees are the same in 0 of them; of 4 members in"
        " run-2, 1 stayed in run-1 and 3 did not; 2 joined. Coverage differs by -12.5 to +12.5"
        " percentage points."
    )


def test_ids_of_two_models_are_not_compared(audit):
    """Nor where the number of experts differs, whatever the models are called."""
    other = other_run(audit)
    for found in (
        compare_audits(audit, other, same_model=False),
        compare_audits(audit, dataclasses.replace(other, num_experts=16), same_model=True),
    ):
        assert not found.same_model
        assert {(x.kept, x.gone, x.come) for x in found.layers} == {((), (), ())}
        assert "kept" not in comparison_table(found)["columns"]
        assert "members" not in found.summary
    html = render_report(
        [audit], run={}, tracer_version="1", others={("gate", "prompt"): other}, same_model=False
    )
    assert "not of the same model" in html
    assert "Kept" not in html


def test_the_table_has_a_row_per_layer_of_either_run(audit):
    table = comparison_table(compare_audits(audit, other_run(audit), same_model=True))

    rows = [dict(zip(table["columns"], row, strict=True)) for row in table["rows"]]
    assert [row["layer"] for row in rows] == [1, 2, 4]
    assert (rows[0]["kept"], rows[0]["gone"], rows[0]["new"]) == ("0", "5 7", "")
    assert (rows[2]["other coverage"], rows[2]["difference"]) == (None, None)


def test_the_page_shows_both_runs(audit):
    html = render_report(
        [audit],
        run={},
        tracer_version="1",
        others={("gate", "prompt"): other_run(audit)},
        same_model=True,
    )

    assert "Beside run run-2" in html
    assert "The runs also differ in the layers" in html
    assert 'id="comparison-coverage"' in html
    assert "the differences have no intervals" in html
    hostile = dataclasses.replace(other_run(audit), run_id="<script>alert(2)</script>")
    others = {("gate", "prompt"): hostile}
    assert "<script>alert" not in render_report(
        [audit], run={}, tracer_version="1", others=others, same_model=True
    )
    alone = render_report([audit], run={}, tracer_version="1")
    assert "Beside run" not in alone


def test_charts_have_a_line_per_run_and_a_gap_where_a_layer_is_missing(audit):
    coverage, lift = comparison_charts(audit, other_run(audit))

    assert {s.name: s.values for s in coverage.series} == {
        "run-1": (0.625, 0.625, 0.3333),
        "run-2": (0.75, 0.5, None),
    }
    assert lift.series[1].values == (1.5, 1.0, None)
