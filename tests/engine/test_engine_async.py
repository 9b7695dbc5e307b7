"""Asynchronous scheduling: each step is scheduled before the one before it was sampled.

So a request that ends by a stop token has been given one more step, whose row must not be kept.
"""

import json
import re
import shutil
from collections import Counter

import pytest

from tests.engine.conftest import HERE
from tests.engine.routing import agreement, rows_of

pytestmark = pytest.mark.engine

STOP_TOKENS = 40
MAX_TOKENS = 16


def model_that_stops(model, folder, token_ids):
    """A copy of the model that ends a request at any of these tokens."""
    shutil.copytree(model, folder)
    path = folder / "generation_config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "eos_token_id": [config["eos_token_id"], *token_ids]}))
    return folder


def test_rows_of_steps_past_a_stop_are_dropped(engine, captured, tmp_path):
    plain = captured("olmoe")
    common = Counter(token for one in plain.outputs.values() for token in one["generated"])
    stops = [token for token, _ in common.most_common(STOP_TOKENS)]
    model = model_that_stops(plain.model, tmp_path / "model", stops)
    done = engine.run(
        tmp_path / "outputs.json", "--model", model, "--dataset", "demo",
        "--lake", tmp_path / "lake", "--run-id", "r", "--max-tokens", MAX_TOKENS,
        "--enforce-eager", "--dtype", "float32", "--weight-precision", "f32",
        code=HERE / "capture_asynchronously.py", cwd=tmp_path,
    )  # fmt: skip
    assert done.exit_code == 0, done.stderr[-3000:]
    outputs = json.loads((tmp_path / "outputs.json").read_text())
    generated = [one["generated"] for one in outputs.values()]
    stopped = sum(tokens[-1] in stops and len(tokens) < MAX_TOKENS for tokens in generated)
    assert stopped >= STOP_TOKENS
    needed = sum(len(one["prompt"]) + len(one["generated"]) - 1 for one in outputs.values())
    forwarded, schedules = map(
        int, re.search(r"(\d+) rows, (\d+) asynchronous schedules", done.stderr).groups()
    )
    assert schedules > MAX_TOKENS
    # Nobody knew of a stop token in time; of the last allowed token everybody did.
    assert forwarded == needed + stopped

    rows, wanted = rows_of(tmp_path / "lake"), rows_of(plain.lake)
    assert rows.keys() == wanted.keys()
    for (request, layer), (ids, weights) in rows.items():
        length = len(outputs[request]["prompt"]) + len(outputs[request]["generated"]) - 1
        assert len(ids) == length
        plain_ids, plain_weights = wanted[request, layer]
        same, difference = agreement((ids, weights), (plain_ids[:length], plain_weights[:length]))
        assert same.all(), (request, layer)
        assert difference <= 1e-5  # float32
