"""`tracer bench capture` on real engines: every mode records what it says. Times are not judged."""

import json
from pathlib import Path

import pytest

from tests.engine.conftest import engine_version

pytestmark = pytest.mark.engine

HERE = Path(__file__).parent
# 4 prompts of 32 tokens, and 4 x (8 + 3) forwarded ones; two pairs.
TOKENS = 2 * (4 * 32 + 4 * 11)
LAYERS = {"mid": 8, "tiny": 4}


@pytest.fixture(scope="module")
def told(engine, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench")
    done = engine.run("--pairs", "2", code=HERE / "bench_small_loads.py", cwd=folder)
    assert done.exit_code == 0, done.stderr[-3000:]
    assert list(folder.iterdir()) == []
    return done


@pytest.mark.parametrize("size", LAYERS)
def test_every_mode_records_what_it_says_and_off_nothing(told, size):
    figures = json.loads(told.stdout.splitlines()[-1])
    rows = TOKENS * LAYERS[size]
    native = {"native": rows} if engine_version() == (0, 30) else {}
    assert figures[f"{size}_rows"] == {"off": 0, "hook": 0, "full": rows, **native}
    assert figures[f"{size}_hooked_routers"] == {
        "off": 0,
        "hook": LAYERS[size],
        "full": LAYERS[size],
        **dict.fromkeys(native, 0),
    }


@pytest.mark.parametrize("size", LAYERS)
def test_the_last_line_has_every_figure(told, size):
    figures = json.loads(told.stdout.splitlines()[-1])
    names = ["cpu_ratio", "hook_cpu_ratio", "wall_ratio", "prefill_cpu_ratio", "decode_cpu_ratio"]
    compared = ["native_cpu_ratio", "vs_native_cpu_ratio"]
    if engine_version() == (0, 30):
        names += compared
    else:
        assert [figures[f"{size}_{name}"] for name in compared] == [None, None]
    for name in names:
        low, high = figures[f"{size}_{name}_interval"]
        assert 0 < low <= figures[f"{size}_{name}"] <= high
    assert figures[f"{size}_floor_cpu_ratio"] > 1
    assert figures["pairs"] == 2
    assert figures["engine"].startswith("vllm")


@pytest.mark.parametrize(("size", "batches"), [("mid", 4), ("tiny", 2)])
def test_full_writes_a_batch_when_a_capture_would(told, size, batches):
    """2,500 choices are one turn of mid, whose tokens have 64, and a pair of tiny, with 16."""
    figures = json.loads(told.stdout.splitlines()[-1])
    per_token = {"mid": 64, "tiny": 16}[size]
    assert figures[f"{size}_batches"] == batches
    assert figures[f"{size}_batch_choices"] == TOKENS * per_token / batches
    assert figures[f"{size}_batch_cpu_s"] > 0


def test_an_engine_of_several_threads_is_not_measured(engine, tmp_path):
    done = engine.run(
        "--pairs", "2", "--model-size", "tiny",
        code=HERE / "bench_small_loads.py", cwd=tmp_path, env={"TRACER_TEST_THREADS": "2"},
    )  # fmt: skip
    assert done.exit_code == 2
    assert done.stdout == ""
    assert "Error: the engine computes on 2 threads" in done.stderr
    assert "Hint: set OMP_NUM_THREADS=1 before Python starts." in done.stderr


def test_progress_is_on_stderr_and_the_table_on_stdout(told):
    assert "pair 2 of 2" in told.stderr
    lines = told.stdout.splitlines()
    assert lines[0].split()[:3] == ["model", "load", "mode"]
    assert {tuple(line.split()[:3]) for line in lines[1:]} >= {
        (size, load, mode)
        for size in LAYERS
        for load in ("prefill", "decode", "both")
        for mode in ("off", "hook", "full")
    }
