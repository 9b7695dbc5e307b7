"""Compiled for real, and compiled before: a graph without the hook must not serve a capture.

vLLM keeps compiled graphs on disk by a key of its configuration. What is recorded stands in
``additional_config``, which belongs to that key.
"""

import json

import pytest

from tests.engine.conftest import HERE
from tests.engine.routing import agreement, rows_of

pytestmark = pytest.mark.engine

# What vLLM logs when it compiles nothing.
LOADED = "Directly load AOT compilation"


def compiled_models(cache):
    """Keys of the models that a cache folder holds."""
    return {path.name for path in cache.glob("torch_compile_cache/torch_aot_compile/*")}


def same_routing(lake, other):
    """Every row of a lake as in another, which may hold more requests."""
    rows, others = rows_of(lake), rows_of(other)
    assert rows.keys() <= others.keys()
    for key, row in rows.items():
        same, difference = agreement(row, others[key])
        assert same.all(), key
        assert difference <= 1e-5  # float32, other fusions
    return len(rows)


def test_a_graph_compiled_without_capture_is_not_used_for_one(engine, captured, tmp_path):
    """One cache, one configuration: an engine that records nothing, captures, the first again."""
    eager = captured("olmoe")
    cache = tmp_path / "cache"
    options = ["--dtype", "float32"]

    def generate():
        done = engine.run(cache, eager.model, "energy", *options, code=HERE / "plain_engine.py")
        assert done.exit_code == 0, done.stderr[-3000:]
        return json.loads(done.stdout.splitlines()[-1])

    def capture(key, lake, *more):
        return engine.run(
            cache, key, tmp_path / "outputs.json", "--model", eager.model, "--dataset", "demo",
            "--lake", lake, "--run-id", "r", "--max-tokens", "16", "--ignore-eos", "--verbose",
            "--weight-precision", "f32", *options, *more,
            code=HERE / "compiled_capture.py", cwd=tmp_path,
        )  # fmt: skip

    generated = generate()
    plain = compiled_models(cache)

    # What would happen without the setting in the key: the graph is used, and that is noticed.
    blind = capture("blind", tmp_path / "blind")
    assert compiled_models(cache) == plain
    assert LOADED in blind.stdout + blind.stderr
    assert blind.exit_code == 3
    assert "did not report its choice" in blind.stderr

    done = capture("whole", tmp_path / "lake")
    assert done.exit_code == 0, done.stderr[-3000:]
    assert LOADED not in done.stdout + done.stderr
    assert plain < compiled_models(cache)
    assert same_routing(tmp_path / "lake", eager.lake) == len(rows_of(eager.lake))

    # The graph with the hook, loaded from the cache, still writes where a new engine reads.
    again = capture("whole", tmp_path / "again", "--limit", "18")
    assert again.exit_code == 0, again.stderr[-3000:]
    assert LOADED in again.stdout + again.stderr
    assert same_routing(tmp_path / "again", eager.lake) == 18 * 4

    assert generate() == generated


def test_what_is_recorded_changes_the_key(engine, planted_model):
    options = [
        {},
        {"weight_precision": "f32"},
        {"top_m": 2},
        {"top_m": 3},
        {"router_logits": True},
        {"router_weights": True},
        {},
    ]
    done = engine.run(planted_model("olmoe"), json.dumps(options), code=HERE / "compile_keys.py")
    assert done.exit_code == 0, done.stderr[-3000:]
    plain, *captures = json.loads(done.stdout.splitlines()[-1])
    assert captures[0] == captures[-1]
    assert len({plain, *captures}) == len(captures)
