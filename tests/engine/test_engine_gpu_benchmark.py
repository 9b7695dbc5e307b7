"""The throughput benchmark on a CPU engine: its launches run, hooked as their mode says."""

import json

import pytest

pytestmark = pytest.mark.engine
HOOKED = {"off": 0, "ours": 4}


@pytest.mark.parametrize("mode", HOOKED)
def test_a_launch_runs_its_load(engine, planted_model, repository, tmp_path, mode):
    """The planted model has 4 MoE layers; ours leaves 3 requests of 8 + 4 - 1 routed tokens."""
    import tracer

    done = engine.run(
        mode, "--model", planted_model("olmoe"), "--load", "decode:3:8:4", "--folder", tmp_path,
        "--enforce-eager", code=repository / "benchmarks" / "gpu" / "vllm_launch.py",
    )  # fmt: skip
    assert done.exit_code == 0, done.stderr[-3000:]
    answer = json.loads((tmp_path / "answer.json").read_text())
    assert answer["tokens_per_s"] > 0
    assert answer["workers"][0]["hooked"] == HOOKED[mode]
    assert answer["workers"][0]["moe_layers"] == 4
    if mode == "ours":
        lake = tracer.open_lake(tmp_path / "lake")
        assert lake.scan("routing").collect().height == 3 * 11 * 4
