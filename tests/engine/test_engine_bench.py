"""`tracer bench capture` on real engines: every mode records what it says. Times are not judged."""

import json
from pathlib import Path

import pytest

from tests.engine.conftest import engine_version

pytestmark = pytest.mark.engine

HERE = Path(__file__).parent
# Two runs of 4 prompts of 32 tokens, one of 4 x (8 + 3) forwarded tokens.
TOKENS = 2 * 4 * 32 + 4 * 11
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
    assert figures[f"{size}_batch_cpu_s"] > 0
    assert figures[f"{size}_long_run_cpu_ratio"] < figures[f"{size}_cpu_ratio"]
    assert figures["pairs"] == 2
    assert figures["engine"].startswith("vllm")


def test_progress_is_on_stderr_and_the_table_on_stdout(told):
    assert "round 2 of 2" in told.stderr
    lines = told.stdout.splitlines()
    assert lines[0].split()[:3] == ["model", "load", "mode"]
    assert {tuple(line.split()[:3]) for line in lines[1:]} >= {
        (size, load, mode)
        for size in LAYERS
        for load in ("prefill", "decode", "both")
        for mode in ("off", "hook", "full")
    }
