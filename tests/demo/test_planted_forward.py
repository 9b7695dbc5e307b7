"""The plant survives the real model: transformers runs it, the committees come back."""

import pytest
from planted_checks import (
    ARCHITECTURES,
    committee_of,
    ranks_of,
    read_prompts,
    read_truth,
)

pytestmark = pytest.mark.filterwarnings("ignore")
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")


@pytest.fixture(scope="module", params=ARCHITECTURES)
def folder(request, demo_models):
    return demo_models[request.param]


def load(folder, dtype):
    model, info = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype, output_loading_info=True
    )
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    return model.eval()


def run(model, folder):
    """Router inputs by layer, (T, H), and the domain of each of the T prompt tokens."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    inputs, domains = {}, []
    layers = read_truth(folder)["moe_layers"]
    hooks = [
        model.model.layers[layer_id].mlp.gate.register_forward_pre_hook(
            lambda _module, args, layer_id=layer_id: inputs.setdefault(layer_id, []).append(
                args[0].reshape(-1, args[0].shape[-1])
            )
        )
        for layer_id in layers
    ]
    # Prompts of one length go together: no padding, and far fewer steps.
    batches = {}
    for row in read_prompts():
        ids = tokenizer(row["prompt"]).input_ids
        batches.setdefault(len(ids), []).append((row["domain"], ids))
    with torch.no_grad():
        for length, batch in batches.items():
            model(torch.tensor([ids for _, ids in batch]))
            domains += [domain for domain, _ in batch for _ in range(length)]
    for hook in hooks:
        hook.remove()
    return {layer_id: torch.cat(parts) for layer_id, parts in inputs.items()}, domains


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_committees_come_back(folder, dtype):
    model = load(folder, getattr(torch, dtype))
    inputs, domains = run(model, folder)
    truth = read_truth(folder)
    renormalised = folder.name == "qwen3_moe"
    for layer_id, hidden in inputs.items():
        planted = truth["layers"][str(layer_id)]
        with torch.no_grad():
            logits = hidden @ model.model.layers[layer_id].mlp.gate.weight.T
            weights, ids = torch.softmax(logits.float(), -1).topk(truth["top_k"])
            if renormalised:
                weights /= weights.sum(-1, keepdim=True)
            gates = torch.zeros(logits.shape).scatter_(1, ids, weights)
        rows = []
        for domain in truth["domains"]:
            chosen = torch.tensor([own == domain for own in domains])
            rows.append(ranks_of(gates[chosen].mean(0).tolist()))
            planted_ranks = {int(e): rank for e, rank in planted["ranks"][domain].items()}
            assert rows[-1] == planted_ranks, (layer_id, domain)
        assert committee_of(rows) == planted["committee"]


def test_greedy_text_stays_in_the_domain_and_varies(folder):
    model = load(folder, torch.float32)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokens = {name: set(ids) for name, ids in read_truth(folder)["domain_tokens"].items()}
    for row in read_prompts()[::20]:
        ids = tokenizer(row["prompt"], return_tensors="pt").input_ids
        with torch.no_grad():
            made = model.generate(ids, max_new_tokens=12, do_sample=False)[0, ids.shape[1] :]
        assert len(made) == len(set(made.tolist())) == 12
        assert set(made.tolist()) <= tokens[row["domain"]]


def test_unknown_text_is_followed_by_neutral_words(folder):
    model = load(folder, torch.float32)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    truth = read_truth(folder)
    planted = {token for ids in truth["domain_tokens"].values() for token in ids}
    for text in ("xyzzy qwertz", "你好 🙂", "1 + 1 ="):
        ids = tokenizer(text, return_tensors="pt").input_ids
        with torch.no_grad():
            made = model.generate(ids, max_new_tokens=8, do_sample=False)[0, ids.shape[1] :]
        assert not planted & set(made.tolist()), tokenizer.decode(made)
        assert truth["top_k"] <= len(set(made.tolist()))
