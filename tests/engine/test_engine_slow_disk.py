"""A disk slower than the engine: the engine waits, memory stays, the run is complete."""

import json
from pathlib import Path

import polars as pl
import pytest

pytestmark = pytest.mark.engine

HERE = Path(__file__).parent
KEY = ["request_id", "layer_id", "position"]
# A shard is sealed once it has this many choices: 4 layers x 4 of 64 tokens, so every few steps.
CHOICES = 1024
LAYERS, TOP_K = 4, 4
MOST_BATCHED_TOKENS = 64


def captured_rows(engine, folder, model, seconds):
    """(rows of routing, what the worker held) of a capture with a disk that slow."""
    folder.mkdir()
    done = engine.run(
        folder / "facts.json", seconds, CHOICES,
        "--model", model, "--dataset", "demo", "--limit", "60", "--lake", "lake", "--run-id", "r",
        "--max-tokens", "8", "--ignore-eos", "--enforce-eager", "--dtype", "float32",
        "--max-num-batched-tokens", MOST_BATCHED_TOKENS, "--max-num-seqs", "8",
        "--format", "json",
        code=HERE / "capture_on_slow_disk.py", cwd=folder,
    )  # fmt: skip
    assert done.exit_code == 0, done.stderr[-3000:]
    summary = json.loads(done.stdout)
    assert summary["num_requests"] == 60
    rows = pl.scan_delta(str(folder / "lake" / "routing")).sort(KEY).collect()
    assert rows.height == summary["num_rows"]
    return rows, json.loads((folder / "facts.json").read_text())


def test_a_slow_disk_holds_the_engine_and_loses_nothing(engine, planted_model, tmp_path):
    """The same rows as from a disk that keeps up, though the engine ran out of slots."""
    model = planted_model("olmoe")
    plain, _ = captured_rows(engine, tmp_path / "plain", model, 0)
    slow, facts = captured_rows(engine, tmp_path / "slow", model, 0.1)
    assert facts["slow_writes"] >= 5 * 8  # shards of four files, each with its folder
    assert facts["stalls"] > 0
    assert slow.equals(plain)
    # 60 requests, each complete: positions from 0, four layers.
    assert slow.n_unique("request_id") == 60
    assert slow.filter(pl.col("position") == 0).height == 60 * LAYERS
    # Bounded: the slots, and a log of what is not sealed, in one chunk of about 4 MB.
    assert facts["drain_bytes"] == 4 * facts["max_rows"] * facts["row_bytes"]
    assert facts["most_log_bytes"] <= (1 << 22) * (1 + 4 / facts["row_bytes"])
    assert facts["row_bytes"] == LAYERS * TOP_K * (1 + 2) + 8
