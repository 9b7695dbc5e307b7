"""Routing by definition, in plain torch: what a capture is compared with.

Hugging Face models are asked for the *input* of each router only; the logits and the top-k are
computed here, since several models return something else under the name of router logits.
"""

import polars as pl
import torch


def rows_of(lake, run_id="r"):
    """(request_id, layer_id) -> (ids [n, k], weights [n, k]) as torch tensors, by position."""
    frame = (
        pl.scan_delta(str(lake / "routing"))
        .filter(pl.col("run_id") == run_id)
        .sort("request_id", "layer_id", "position")
        .collect()
    )
    table = {}
    for (request, layer), rows in frame.group_by(["request_id", "layer_id"], maintain_order=True):
        assert rows["position"].to_list() == list(range(rows.height))
        table[request, layer] = (
            torch.tensor(rows["expert_ids"].to_list()),
            torch.tensor(rows["gate_weights"].to_list()),
        )
    return table


def softmax_topk(logits, top_k, *, renormalise):
    """Softmax over all experts, then the k largest, by descending weight; logits [n, E]."""
    scores = logits.float().softmax(-1)
    weights, ids = scores.topk(top_k, dim=-1)
    if renormalise:
        weights = weights / weights.sum(-1, keepdim=True)
    return ids, weights


def hugging_face_logits(model_path, sequences, *, dtype=torch.float32):
    """layer -> list over sequences of router logits [n, E], from the inputs of HF's own routers."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(model_path, dtype=dtype).eval()
    seen = {}
    for number, layer in enumerate(model.model.layers):
        router = getattr(getattr(layer, "mlp", None), "gate", None)
        if router is not None and hasattr(router, "weight"):
            seen[number] = (router, [])

            def keep(module, inputs, _=None, number=number):
                hidden = inputs[0].reshape(-1, inputs[0].shape[-1])
                seen[number][1].append(hidden @ module.weight.T.to(hidden.dtype))

            router.register_forward_pre_hook(keep)
    assert seen, "no routers found in the Hugging Face model"
    with torch.no_grad():
        for tokens in sequences:
            model(torch.tensor([tokens]))
    return {number: logits for number, (_, logits) in seen.items()}


def agreement(captured, expected):
    """(share of (token, layer) whose id sets agree, largest weight difference on those).

    Both: (ids [n, k], weights [n, k]).
    """
    ids, weights = captured
    wanted_ids, wanted_weights = expected
    order, wanted_order = ids.argsort(-1), wanted_ids.argsort(-1)
    ids, weights = ids.gather(1, order), weights.gather(1, order)
    wanted_ids = wanted_ids.gather(1, wanted_order)
    wanted_weights = wanted_weights.gather(1, wanted_order)
    same = (ids == wanted_ids).all(-1)
    difference = (weights - wanted_weights)[same].abs().max().item() if same.any() else 0.0
    return same, difference
