"""Two pipeline stages in processes of their own: each records its layers, one the tokens.

The CPU engine needs a gap filled to run stages at all: ``stand_ins/pipeline_stages.py``.
"""

import os
import subprocess
import sys

import polars as pl
import pytest

from tests.engine.conftest import HERE
from tests.engine.routing import agreement, rows_of

pytestmark = pytest.mark.engine

NUM_LAYERS = 4
NUM_PROMPTS = 234


def capture_in_stages(folder, model, stage_to_kill):
    path = [str(HERE / "stand_ins"), *filter(None, [os.environ.get("PYTHONPATH")])]
    return subprocess.run(
        [
            sys.executable, HERE / "capture_in_stages.py", stage_to_kill, "--model", model,
            "--dataset", "demo", "--lake", folder / "lake", "--run-id", "r",
            "--max-tokens", "16", "--ignore-eos", "--dtype", "float32",
            "--weight-precision", "f32", "--enforce-eager", "--max-num-seqs", "32",
            "--pipeline-parallel-size", "2",
        ],
        env={
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "PYTHONPATH": os.pathsep.join(path),
        },
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip


def table(lake, name):
    return pl.read_delta(str(lake / name))


def layers_by_request(lake):
    routing = table(lake, "routing").group_by("request_id").agg(pl.col("layer_id").unique())
    return {request: sorted(layers) for request, layers in routing.iter_rows()}


def test_stages_record_their_layers_and_commit_together(captured, tmp_path):
    """A stage is killed between two batches; what stands is whole, and the same command ends it."""
    plain = captured("olmoe")
    lake = tmp_path / "lake"

    broken = capture_in_stages(tmp_path, plain.model, stage_to_kill="1")

    assert broken.returncode == 4, broken.stderr[-3000:]
    assert "1 stages killed" in broken.stderr
    committed = set(table(lake, "requests")["request_id"])
    assert 0 < len(committed) < NUM_PROMPTS
    by_request = layers_by_request(lake)
    assert by_request.keys() == committed
    assert all(layers == list(range(NUM_LAYERS)) for layers in by_request.values())

    resumed = capture_in_stages(tmp_path, plain.model, stage_to_kill="none")

    assert resumed.returncode == 0, resumed.stderr[-3000:]
    requests = table(lake, "requests")
    assert (requests.height, requests["request_id"].n_unique()) == (NUM_PROMPTS, NUM_PROMPTS)
    routing, tokens = table(lake, "routing"), table(lake, "tokens")
    keys = ["request_id", "position"]
    assert routing.height == routing.n_unique([*keys, "layer_id"])
    # The last token of each request was never forwarded.
    assert routing.height == NUM_LAYERS * (tokens.height - NUM_PROMPTS)
    same_columns = ["token_id", "phase"]
    assert (
        tokens.sort(keys).select(keys + same_columns)
        .equals(table(plain.lake, "tokens").sort(keys).select(keys + same_columns))
    )  # fmt: skip
    rows, wanted = rows_of(lake), rows_of(plain.lake)
    assert rows.keys() == wanted.keys()
    for key, row in rows.items():
        same, difference = agreement(row, wanted[key])
        assert same.all(), key
        assert difference <= 1e-5  # float32, other batches
