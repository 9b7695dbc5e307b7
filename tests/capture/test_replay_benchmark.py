"""The replay benchmark without a GPU: it says so, and its dry run goes through every step."""

import json
import os
import subprocess
import sys

import pytest

torch = pytest.importorskip("torch", reason="needs vLLM: make setup")


def replay(repository, *words):
    return subprocess.run(
        [sys.executable, "benchmarks/gpu/replay.py", *words],
        capture_output=True,
        text=True,
        check=False,
        cwd=repository,
        env={**os.environ, "PYTHONPATH": str(repository), "CUDA_VISIBLE_DEVICES": ""},
    )


def test_without_a_gpu_it_says_what_is_missing(repository):
    done = replay(repository)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("replay.py: torch finds no CUDA device")
    assert done.stderr.count("\n") == 1


def test_a_dry_run_measures_nothing_and_says_so(repository):
    """Two tiny shapes; a token of theirs is 2 layers of 2 choices of 3 bytes and 8 of labels."""
    done = replay(repository, "--device", "cpu", "--rounds", "2")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("a dry run")
    answer = json.loads(done.stdout.splitlines()[-1])
    assert answer["measurement"] is False
    assert [(shape["rows"], shape["bytes"]) for shape in answer["shapes"]] == [(1, 20), (4, 80)]
    assert all(len(shape["us"]) == 7 and len(shape["ratio"]) == 6 for shape in answer["shapes"])
