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


def test_a_launch_records_turn_after_turn(engine, planted_model, repository, tmp_path):
    """The hooks stay in from one recording to the next, as CUDA graphs need it."""
    (tmp_path / "lines").write_text("short\nlong\nshort\n")
    done = engine.run(
        "ours", "--model", planted_model("olmoe"), "--load", "short:2:8:2", "--load", "long:3:16:4",
        "--folder", tmp_path, "--turns", tmp_path / "lines", "--enforce-eager",
        code=repository / "benchmarks" / "gpu" / "vllm_launch.py",
    )  # fmt: skip
    assert done.exit_code == 0, done.stderr[-3000:]
    ready, *turns = map(json.loads, (tmp_path / "turns.jsonl").read_text().splitlines())
    assert ready == {"ready": True}
    assert [turn["load"] for turn in turns] == ["short", "long", "short"]
    assert [turn["rows"] for turn in turns] == [2 * 9 * 4, 3 * 19 * 4, 2 * 9 * 4]
    assert all(0 < turn["served_s"] <= turn["whole_s"] for turn in turns)
