"""Figures as files, and files that the report reads."""

import dataclasses
import json
import struct
import sys
import xml.etree.ElementTree as ET

import pytest

from tracer.errors import InputError, MissingLibraryError
from tracer.report import png
from tracer.report.figure_files import FIGURE_NAMES, figure_files
from tracer.report.html import render_report
from tracer.report.token_roles import read_token_roles

HOSTILE = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def drawings(made_up_audit):
    audit = made_up_audit(3, 16, 3, k=4)
    return figure_files([audit], {("gate", "prompt"): made_up_audit(4, 16, 3, k=4, seed=1)})


def test_every_figure_is_a_document_of_its_own(drawings):
    """Nothing from outside, no variables of the page, a size."""
    kinds = {name.removeprefix("gate-prompt-") for name in drawings}
    assert kinds == {
        "committee-size",
        "comparison-coverage",
        "comparison-lift",
        "contributions",
        "coverage",
        "coverage-lift",
        "gini",
        "influence-density",
        "jaccard",
        "jaccard-depth",
        "lorenz",
        "member-ranks",
        "rank-variance",
    }
    assert {f"{name}.svg" for name in drawings} <= FIGURE_NAMES
    assert "gate-prompt-task-specificity.png" in FIGURE_NAMES
    for svg in drawings.values():
        root = ET.fromstring(svg)  # noqa: S314 - our own
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert float(root.get("width")) > 0
        assert "var(" not in svg
        assert svg.count("://") == 1


def test_figures_are_the_same_every_time(made_up_audit, drawings):
    again = figure_files(
        [made_up_audit(3, 16, 3, k=4)],
        {("gate", "prompt"): made_up_audit(4, 16, 3, k=4, seed=1)},
    )
    assert again == drawings


def test_figures_of_hostile_names_hold_text(audit):
    for svg in figure_files([audit]).values():
        assert "<script" not in svg
        ET.fromstring(svg)  # noqa: S314 - our own


def test_an_empty_audit_has_no_figures(audit):
    empty = dataclasses.replace(audit, layers=[], contributions=[], overlaps=[], domains=[])
    assert figure_files([empty]) == {}


def test_a_picture_has_three_pixels_per_unit_and_is_not_blank():
    pytest.importorskip("resvg_py", reason="needs resvg-py: make setup")
    blank = '<svg xmlns="http://www.w3.org/2000/svg" width="20" height="10">{}</svg>'
    square = png.svg_to_png(blank.format('<rect width="5" height="5" fill="#f00"/>'))

    assert square.startswith(b"\x89PNG\r\n\x1a\n")
    assert struct.unpack(">II", square[16:24]) == (60, 30)
    assert square != png.svg_to_png(blank.format(""))


def test_a_machine_without_fonts_or_library_is_told_before_any_work(monkeypatch):
    monkeypatch.setattr(png, "svg_to_png", lambda _svg: b"blank")
    with pytest.raises(InputError, match="no fonts"):
        png.check_png()
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "resvg_py", None)
    with pytest.raises(MissingLibraryError, match="resvg-py") as refused:
        png.check_png()
    assert "figures" in refused.value.hint


ROWS = [
    {"layer_id": 3, "expert_id": 1, "token_id": 9, "token": "\n ", "share": 0.5},
    {"layer_id": 1, "expert_id": 2, "token_id": 7, "token": HOSTILE, "share": 0.25},
    {"layer_id": 1, "expert_id": 0, "token_id": 8, "token": "12", "share": None},
]


def test_token_roles_are_read_from_json_and_csv(tmp_path):
    """Sorted by layer and expert; a token that looks like a number stays text."""
    as_json, as_csv = tmp_path / "roles.json", tmp_path / "roles.csv"
    as_json.write_text(json.dumps(ROWS))
    as_csv.write_text('share,layer_id,expert_id,token_id,token\n0.5,3,1,9,"\n "\n0.25,1,2,7,x\n')

    table = read_token_roles(as_json)

    assert table["columns"] == ["layer_id", "expert_id", "token_id", "token", "share"]
    assert table["rows"] == [[1, 0, 8, "12", None], [1, 2, 7, HOSTILE, 0.25], [3, 1, 9, "\n ", 0.5]]
    assert read_token_roles(as_csv) == {
        "columns": ["layer_id", "expert_id", "token_id", "token", "share"],
        "rows": [[1, 2, 7, "x", 0.25], [3, 1, 9, "\n ", 0.5]],
    }


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("r.csv", "", "no rows"),
        ("r.csv", "layer_id,expert_id\n1,2\n", "no column 'token_id'"),
        ("r.csv", "layer_id,expert_id,token_id\n1,2\n", "not a table"),
        ("r.csv", "layer_id,expert_id,token_id\n1,x,3\n", "not a whole number"),
        ("r.csv", "layer_id,expert_id,token_id\n1,-1,3\n", "not a whole number"),
        ("r.json", "{", "not a table"),
        ("r.json", "{}", "list of objects"),
        ("r.json", '[{"layer_id": 1, "expert_id": 2, "token_id": 3}, {}]', "rows differ"),
    ],
)
def test_a_file_of_token_roles_that_cannot_be_used_is_refused(tmp_path, name, text, words):
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=words):
        read_token_roles(tmp_path / name)
    with pytest.raises(InputError, match="cannot read"):
        read_token_roles(tmp_path / "missing.csv")


def test_tokens_stay_text_on_the_page(tmp_path, audit):
    path = tmp_path / "roles.json"
    path.write_text(json.dumps(ROWS))

    html = render_report([audit], run={}, tracer_version="1", token_roles=read_token_roles(path))

    assert HOSTILE not in html
    assert 'id="token-roles"' in html
    assert 'id="token-roles"' not in render_report([audit], run={}, tracer_version="1")
