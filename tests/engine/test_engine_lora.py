"""A capture with a LoRA adapter records what the merged weights would."""

import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.engine.conftest import HERE, engine_version
from tests.engine.routing import agreement, rows_of

pytestmark = pytest.mark.engine

RANK, ALPHA = 8, 16
MODULES = {"q_proj": "self_attn", "v_proj": "self_attn", "o_proj": "self_attn", "gate": "mlp"}
OPTIONS = [
    "--dataset", "demo", "--run-id", "r", "--max-tokens", "8", "--ignore-eos", "--enforce-eager",
    "--dtype", "float32", "--weight-precision", "f32", "--limit", "90",
]  # fmt: skip


def write_adapter(model, folder):
    """An adapter in PEFT's format with drawn matrices; returns the weights it changes, merged."""
    rng = np.random.default_rng(0)
    weights = load_file(model / "model.safetensors")
    adapter, merged = {}, {}
    for name, weight in weights.items():
        *_, parent, module, _ = f"..{name}".split(".")
        if MODULES.get(module) != parent:
            continue
        down = rng.normal(scale=0.1, size=(RANK, weight.shape[1])).astype(np.float32)
        up = rng.normal(scale=0.1, size=(weight.shape[0], RANK)).astype(np.float32)
        stem = "base_model.model." + name.removesuffix(".weight")
        adapter |= {f"{stem}.lora_A.weight": down, f"{stem}.lora_B.weight": up}
        merged[name] = (weight + ALPHA / RANK * (up @ down)).astype(weight.dtype)
    folder.mkdir()
    save_file(adapter, folder / "adapter_model.safetensors")
    config = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": RANK, "lora_alpha": ALPHA,
        "lora_dropout": 0.0, "bias": "none", "target_modules": list(MODULES),
    }  # fmt: skip
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return merged


def write_merged(model, folder, merged):
    shutil.copytree(model, folder)
    weights = load_file(model / "model.safetensors")
    save_file({**weights, **merged}, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.skipif(engine_version() < (0, 31), reason="the CPU kernel's choice was made elsewhere")
def test_an_adapter_routes_as_the_merged_weights_do(engine, captured, tmp_path):
    plain = captured("olmoe")
    adapter, model = tmp_path / "adapter", tmp_path / "merged"
    merged = write_adapter(plain.model, adapter)
    assert len(merged) == len(MODULES) * 4
    write_merged(plain.model, model, merged)

    adapted = engine.run(
        "capture", "--model", plain.model, "--lora", adapter, "--lake", tmp_path / "lake",
        *OPTIONS, code=HERE / "lora_on_cpu.py", cwd=tmp_path,
    )  # fmt: skip
    assert adapted.exit_code == 0, adapted.stderr[-3000:]
    done = engine.run(
        "capture", "--model", model, "--lake", tmp_path / "wanted", *OPTIONS, cwd=tmp_path
    )
    assert done.exit_code == 0, done.stderr[-3000:]

    rows, wanted = rows_of(tmp_path / "lake"), rows_of(tmp_path / "wanted")
    base = rows_of(plain.lake)
    assert rows.keys() == wanted.keys()
    changed = total = 0
    for key, row in rows.items():
        same, difference = agreement(row, wanted[key])
        assert same.all(), key
        assert difference <= 1e-5  # float32; B(Ax) is not rounded as (BA)x
        same, _ = agreement((row[0][:1], row[1][:1]), (base[key][0][:1], base[key][1][:1]))
        changed += int((~same).sum())
        total += 1
    # The first token is the same with and without the adapter: only weights can move its routing.
    assert changed > total / 10
