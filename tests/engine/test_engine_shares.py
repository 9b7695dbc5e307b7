"""A capture in shares, some killed, is the capture of one process: `tracer capture --shard I/N`.

Rows are compared by key. Equal: requests, token ids, expert ids but for ties of router scores
within 1e-6. Gate weights may differ by 1e-5, since other requests share a step's batch.
"""

import json
import signal

import polars as pl
import pytest

from tests.engine.conftest import dies_after_two_commits
from tests.torture.compare import compare
from tracer.store.lake import Lake
from tracer.store.shares import Share, holding_share, split_of
from tracer.workflow.verify import verify_lake

pytestmark = pytest.mark.engine


def options(model, lake, *more):
    return [
        "capture", "--model", model, "--dataset", "demo", "--lake", lake, "--run-id", "r",
        "--enforce-eager", "--limit", "60", "--max-tokens", "8", "--max-num-seqs", "16",
        "--temperature", "0.8", "--samples", "2", "--seed", "3", "--store-text",
        "--dtype", "float32", "--weight-precision", "f32", "--router-logits", "--router-weights",
        "--format", "json", *more,
    ]  # fmt: skip


def requests(lake):
    return pl.read_delta(str(lake / "requests")).sort("request_id").to_dicts()


def runs(lake):
    return pl.read_delta(str(lake / "runs")).drop("started_at", "finished_at").to_dicts()


def test_shares_one_of_them_killed_are_one_capture(engine, planted_model, tmp_path):
    model, lake, whole = planted_model("olmoe"), tmp_path / "lake", tmp_path / "whole"
    alone = engine.run(*options(model, whole))
    assert alone.exit_code == 0, alone.stderr
    assert json.loads(alone.stdout)["share"] is None
    script = tmp_path / "dies.py"
    script.write_text(dies_after_two_commits(9000))

    dying = engine.start(*options(model, lake, "--shard", "1/2"), code=script)
    first = engine.run(*options(model, lake, "--shard", "0/2"))
    killed = dying.wait()

    assert first.exit_code == 0, first.stderr
    assert killed.exit_code == -signal.SIGKILL, killed.stderr
    summary = json.loads(first.stdout)
    assert (summary["share"], summary["run_status"]) == ("0/2", "running")
    found = {row["request_id"] for row in requests(lake)}
    mine = set(Share(0, 2).take([row["request_id"] for row in requests(whole)]))
    assert 60 < len(found) < 120
    assert len(mine) == 60
    assert runs(lake) == [{**runs(whole)[0], "status": "running"}]
    assert split_of(Lake.open(lake).storage, "r") == 2

    other = engine.run(*options(model, lake, "--shard", "0/3"))
    assert other.exit_code == 2
    assert "run 'r' is split into 2 shares, not 3" in other.stderr
    assert "loading the model" not in other.stderr
    with holding_share(Lake.open(lake).storage, "r", Share(1, 2)):
        for more in (["--shard", "1/2"], []):
            busy = engine.run(*options(model, lake, *more))
            assert busy.exit_code == 2
            assert "run 'r' is being written by another process" in busy.stderr
            assert "loading the model" not in busy.stderr
    done = engine.run(*options(model, lake, "--shard", "0/2"))
    assert done.exit_code == 0
    assert "share 0/2 of run r is already in the lake" in done.stderr
    assert "loading the model" not in done.stderr

    resumed = engine.run(*options(model, lake, "--shard", "1/2"))

    assert resumed.exit_code == 0, resumed.stderr
    summary = json.loads(resumed.stdout)
    assert (summary["share"], summary["run_status"]) == ("1/2", "complete")
    assert summary["num_requests"] == 120
    assert 0 < summary["resumed_requests"] < 60
    assert requests(lake) == requests(whole)
    assert runs(lake) == runs(whole)
    found = compare(lake, whole)
    assert found.ok, found
    assert found.rows == pl.read_delta(str(whole / "routing")).height
    assert pl.read_delta(str(lake / "routers")).height == 4  # once, whoever began
    assert verify_lake(Lake.open(lake), None, repair=False, checked=lambda _: None).faults == []
    late = engine.run(*options(model, lake, "--shard", "1/2"))
    assert "run r is already complete" in late.stderr


def test_one_process_finishes_what_shares_left(engine, planted_model, tmp_path):
    """More shares than requests; two have run. The others' requests are what is left."""
    model, lake = planted_model("olmoe"), tmp_path / "lake"
    command = [
        "capture", "--model", model, "--dataset", "demo", "--lake", lake, "--limit", "3",
        "--max-tokens", "2", "--enforce-eager", "--format", "json",
    ]  # fmt: skip
    for shard, count in (("1/5", 1), ("4/5", 1)):
        done = engine.run(*command, "--shard", shard)
        assert done.exit_code == 0, done.stderr
        assert json.loads(done.stdout)["num_requests"] == count
    done = engine.run(*command)
    assert done.exit_code == 0, done.stderr
    summary = json.loads(done.stdout)
    assert (summary["num_requests"], summary["run_status"]) == (3, "complete")
    assert summary["resumed_requests"] == 1
    assert split_of(Lake.open(lake).storage, summary["run_id"]) is None
