"""`tracer audit` on a lake as it lies on disk: draws, seeds, and the mode without them."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from tracer.cli import cli

LAKE = Path(__file__).parents[1] / "fixtures" / "lake-1"
WORDS = ["audit", "--lake", str(LAKE), "--run", "a", "--tokens", "generated"]


def run(*words):
    result = CliRunner().invoke(cli, words)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_draws_are_made_by_default():
    text = run(*WORDS)
    assert "199 draws of each kind, seed 0" in text
    assert "\nagreement: too few domains or requests to say (2 of 2 layers)\n" in text


def test_no_draws_leave_them_out():
    rows = json.loads(run(*WORDS, "--draws", "0", "--format", "json"))
    assert [row["intervals"] for row in rows] == [None, None]
    assert "draws" not in run(*WORDS, "--draws", "0")


@pytest.mark.parametrize("form", ["table", "csv", "json"])
def test_a_seed_repeats_every_byte(form):
    words = [*WORDS, "--draws", "9", "--format", form]
    assert run(*words, "--seed", "3") == run(*words, "--seed", "3")


def test_reference_mode_has_no_draws_unless_it_is_asked_for_them():
    words = ["audit", "--lake", str(LAKE), "--run", "a", "--mode", "reference"]
    assert "mode reference repeats numbers of the authors' code" in run(*words)
    refused = CliRunner().invoke(cli, [*words, "--draws", "9"])
    assert refused.exit_code != 0
