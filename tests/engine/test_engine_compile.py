"""Compiled for real, and compiled before: a graph without the hook must not serve a capture.

vLLM keeps compiled graphs on disk by a key of its configuration. What is recorded stands in
``additional_config``, which belongs to that key.
"""

import json

import pytest

from tests.engine.conftest import HERE
from tests.engine.routing import agreement, rows_of

pytestmark = pytest.mark.engine


def compiled_models(cache):
    """Keys of the models that a cache folder holds."""
    return {path.name for path in cache.glob("torch_compile_cache/torch_aot_compile/*")}


def test_a_graph_compiled_without_capture_is_not_used_for_one(engine, captured, tmp_path):
    """One cache: an engine without capture, a capture, and the first engine again."""
    eager = captured("olmoe")
    cache = tmp_path / "cache"
    prompts = ["energy", "the court of appeal"]

    def generate():
        done = engine.run(cache, eager.model, *prompts, code=HERE / "plain_engine.py")
        assert done.exit_code == 0, done.stderr[-3000:]
        return json.loads(done.stdout.splitlines()[-1])

    before = generate()
    plain = compiled_models(cache)
    assert len(plain) == 1

    done = engine.run(
        cache, tmp_path / "outputs.json", "--model", eager.model, "--dataset", "demo",
        "--lake", tmp_path / "lake", "--run-id", "r", "--max-tokens", "16", "--ignore-eos",
        "--dtype", "float32", "--weight-precision", "f32",
        code=HERE / "compiled_capture.py", cwd=tmp_path,
    )  # fmt: skip
    assert done.exit_code == 0, done.stderr[-3000:]
    both = compiled_models(cache)
    assert plain < both
    assert len(both) == 2

    rows, wanted = rows_of(tmp_path / "lake"), rows_of(eager.lake)
    assert rows.keys() == wanted.keys()
    for key, row in rows.items():
        same, difference = agreement(row, wanted[key])
        assert same.all(), key
        assert difference <= 1e-5  # float32, other fusions

    assert generate() == before
    assert compiled_models(cache) == both


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
