"""End to end against Hugging Face transformers on the same token sequences.

float32: id sets equal for every (token, layer), weights within 1e-5. For bfloat16 a rate is
reported; docs/fidelity.md has the numbers.
"""

import json
from pathlib import Path

import pytest
import torch

from tests.engine.routing import agreement, hugging_face_logits, rows_of, softmax_topk

pytestmark = pytest.mark.engine


def compare(run, logits, *, renormalise):
    """(share of id sets that agree, largest weight difference, number of (token, layer))."""
    rows = rows_of(run.lake)
    same, worst = [], 0.0
    for index, request in enumerate(run.outputs):
        for layer, by_sequence in logits.items():
            expected = softmax_topk(by_sequence[index], 4, renormalise=renormalise)
            equal, difference = agreement(rows[request, layer], expected)
            same.append(equal)
            worst = max(worst, difference)
    every = torch.cat(same)
    return every.float().mean().item(), worst, len(every)


def sequences(run):
    """What was forwarded: prompt and generated tokens without the last sampled one."""
    return [(o["prompt"] + o["generated"])[:-1] for o in run.outputs.values()]


@pytest.fixture(scope="session")
def mixtral(tmp_path_factory, planted_model):
    """A random Mixtral with the demo tokenizer; nothing is planted in it."""
    from transformers import MixtralConfig, MixtralForCausalLM

    folder = tmp_path_factory.mktemp("models") / "mixtral"
    demo = planted_model("olmoe")
    vocab_size = json.loads((demo / "config.json").read_text())["vocab_size"]
    torch.manual_seed(0)
    config = MixtralConfig(
        vocab_size=vocab_size, hidden_size=128, intermediate_size=64, num_hidden_layers=3,
        num_attention_heads=4, num_key_value_heads=2, num_local_experts=16, num_experts_per_tok=4,
        max_position_embeddings=1024,
    )  # fmt: skip
    model = MixtralForCausalLM(config)
    for layer in model.model.layers:  # HF's initial routers are nearly uniform
        torch.nn.init.normal_(layer.mlp.gate.weight, std=0.2)
    model.save_pretrained(folder)
    for path in demo.glob("*token*"):
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


@pytest.mark.parametrize(
    ("architecture", "renormalise"),
    [("olmoe", False), ("qwen3_moe", True), ("deepseek_v2", False)],
)
def test_float32_agrees_with_hugging_face(captured, architecture, renormalise):
    run = captured(architecture)
    logits = hugging_face_logits(run.model, sequences(run))
    share, worst, count = compare(run, logits, renormalise=renormalise)
    print(f"{architecture}: {share:.6f} of {count} id sets agree, |dw| <= {worst:.2e}")
    assert count == run.summary["num_rows"]
    assert share == 1.0
    assert worst <= 1e-5


def test_float32_mixtral_agrees_with_hugging_face(captured, mixtral):
    run = captured("mixtral", model=mixtral)
    logits = hugging_face_logits(run.model, sequences(run))
    share, worst, count = compare(run, logits, renormalise=True)
    print(f"mixtral: {share:.6f} of {count} id sets agree, |dw| <= {worst:.2e}")
    assert count == run.summary["num_rows"]
    assert share == 1.0
    assert worst <= 1e-5


def test_bfloat16_rate_against_hugging_face(captured):
    """Rounding moves choices whose scores lie close together; on the plant few do."""
    run = captured("olmoe", "--dtype", "bfloat16")
    logits = hugging_face_logits(run.model, sequences(run), dtype=torch.bfloat16)
    share, worst, count = compare(run, logits, renormalise=False)
    print(f"olmoe bfloat16: {share:.4f} of {count} id sets agree, |dw| <= {worst:.2e}")
    assert share > 0.9


def test_deepseek_v2_agrees_with_its_routing_by_definition(engine, planted_model, tmp_path):
    """Routing recomputed from the router input of the same forward: all ids, weights to 1e-5."""
    script = Path(__file__).with_name("capture_router_inputs.py")
    done = engine.run(planted_model("deepseek_v2"), tmp_path, code=script)
    assert done.exit_code == 0, done.stderr[-4000:]
    kept = torch.load(tmp_path / "inputs.pt")
    rows = rows_of(tmp_path / "lake")
    compared = 0
    for (request, layer), captured_rows in rows.items():
        ids, weights = softmax_topk(kept[layer][request], 4, renormalise=False)
        same, difference = agreement(captured_rows, (ids, weights))
        assert same.all()
        assert difference <= 1e-5
        compared += len(same)
    print(f"deepseek_v2: all of {compared} id sets agree")
    assert compared > 1000
