"""``tracer report`` with its options, on an imported run."""

import json
import shutil

import pytest


@pytest.fixture
def pictures():
    """PNG files can be made."""
    pytest.importorskip("resvg_py", reason="needs resvg-py: make setup")


@pytest.fixture
def lake(tracer, interchange):
    assert tracer("import", *interchange(), "--run-id", "one").exit_code == 0
    return "lake"


def test_figures_are_written_beside_the_page(tracer, lake, tmp_path, pictures):
    told = tracer("report", "--figures", "out/figures")

    assert told.exit_code == 0, told
    assert told.stdout.splitlines()[0] == "figures: out/figures"
    files = sorted(path.name for path in (tmp_path / "out" / "figures").iterdir())
    svg = [name.removesuffix(".svg") for name in files if name.endswith(".svg")]
    assert [name.removesuffix(".png") for name in files if name.endswith(".png")] == svg
    assert {"gate-prompt-coverage", "gate-prompt-contributions", "gate-prompt-lorenz"} <= set(svg)
    assert tracer("report", "--figures", "out/figures", "--svg-only").exit_code == 0
    left = {path.suffix for path in (tmp_path / "out" / "figures").iterdir()}
    assert left == {".svg"}


def test_a_folder_with_anything_else_is_left_alone(tracer, lake, tmp_path):
    mine = tmp_path / "figures" / "notes.txt"
    mine.parent.mkdir()
    mine.write_text("mine")

    tracer("report", "--figures", "figures").failed(2, "also holds 'notes.txt'", "--figures")
    tracer("report", "--figures", "lake").failed(2, "lake", "--figures")
    (tmp_path / "file").write_text("x")
    tracer("report", "--figures", "file").failed(2, "not what this would replace")
    tracer("report", "--figures", "file/figures", "--svg-only").failed(2, "cannot write")

    assert [path.name for path in mine.parent.iterdir()] == ["notes.txt"]
    assert not (tmp_path / "report.html").exists()


def test_figures_are_whole_or_not_there(tracer, lake, tmp_path, monkeypatch, pictures):
    """The third picture fails: nothing of the folder is seen, what stood there stays."""
    assert tracer("report", "--figures", "figures", "--svg-only").exit_code == 0
    before = sorted(path.name for path in (tmp_path / "figures").iterdir())
    calls = []

    def fail(svg):
        calls.append(svg)
        if len(calls) == 3:
            raise OSError(28, "No space left on device")
        return b"png"

    monkeypatch.setattr("tracer.workflow.report.svg_to_png", fail)
    tracer("report", "--figures", "figures").failed(2, "No space left")

    assert sorted(path.name for path in (tmp_path / "figures").iterdir()) == before
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_run_is_shown_beside_another(tracer, lake, interchange, tmp_path):
    """The other run's request b chose expert 3 in place of 2."""
    ids = [[0, 1]] * 6 + [[0, 3]] * 6
    words = interchange("other", routing={"expert_ids": ids})
    assert tracer("import", *words, "--run-id", "two").exit_code == 0

    assert tracer("report", "--run", "one", "--compare", "two").exit_code == 0

    page = (tmp_path / "report.html").read_text()
    assert "Beside run two" in page
    assert "2 layers are in both runs." in page
    tracer("report", "--run", "one", "--compare", "one").failed(2, "with itself", "--compare")
    tracer("report", "--run", "one", "--compare", "none").failed(2, "no run 'none'")


def test_runs_of_two_models_are_compared_without_ids(tracer, lake, interchange, tmp_path):
    words = interchange("other", run={"model": "another"})
    assert tracer("import", *words, "--run-id", "two").exit_code == 0

    assert tracer("report", "--run", "one", "--compare", "two").exit_code == 0

    assert "not of the same model" in (tmp_path / "report.html").read_text()


def test_token_roles_are_shown(tracer, lake, tmp_path):
    rows = [{"layer_id": 1, "expert_id": 0, "token_id": 100, "token": "the", "share": 1.0}]
    (tmp_path / "roles.json").write_text(json.dumps(rows))

    assert tracer("report", "--token-roles", "roles.json").exit_code == 0

    assert "Tokens of an expert" in (tmp_path / "report.html").read_text()
    tracer("report", "--token-roles", "missing.csv").failed(2, "cannot read missing.csv")
    shutil.rmtree(tmp_path / "lake")
    tracer("report", "--token-roles", "roles.json").failed(2, "not a trace lake")
