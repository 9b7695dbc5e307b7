"""Routing of each architecture by its published definition, in plain torch.

Written from the models' papers and reference code in Transformers, never from vLLM. Each function
takes router inputs [n, H] in float32 and the layer's router parameters by role (``weight`` [E, H],
``bias`` [E] on the logits, ``selection_bias`` [E], ``input_scale`` [H], ``expert_scale`` [E]) and
returns (expert ids [n, k], weights [n, k]): the weights the experts' outputs (Llama 4: inputs) are
multiplied by in the model, its scaling factor included.
"""

import torch


def logits(inputs, router):
    return torch.nn.functional.linear(inputs, router["weight"], router.get("bias"))


def softmax(inputs, router, *, top_k, renormalise):
    """Softmax over all experts, then the k largest: OLMoE, Qwen, Mixtral and many others."""
    weights, ids = logits(inputs, router).softmax(-1).topk(top_k)
    if renormalise:
        weights = weights / weights.sum(-1, keepdim=True)
    return ids, weights


def top_then_softmax(inputs, router, *, top_k):
    """The k largest logits, then a softmax over those: Granite, GPT-OSS, Cohere."""
    chosen, ids = logits(inputs, router).topk(top_k)
    return ids, chosen.softmax(-1)


def top_then_sigmoid(inputs, router, *, top_k, renormalise=False):
    """The k largest logits, each through a sigmoid: Llama 4, Cohere with sigmoid."""
    chosen, ids = logits(inputs, router).topk(top_k)
    weights = chosen.sigmoid()
    return ids, weights / weights.sum(-1, keepdim=True) if renormalise else weights


def within_best_groups(scores, group_scores, chosen_groups):
    """``scores`` [n, E] with -inf outside the best groups; ``group_scores`` [n, groups]."""
    groups = group_scores.shape[-1]
    best = torch.zeros_like(group_scores, dtype=torch.bool)
    best.scatter_(1, group_scores.topk(chosen_groups).indices, True)
    inside = best.repeat_interleave(scores.shape[-1] // groups, dim=-1)
    return scores.masked_fill(~inside, float("-inf"))


def grouped_softmax(inputs, router, *, top_k, groups, chosen_groups, factor):
    """DeepSeek-V2: a group is as good as its best expert; weights times the factor."""
    scores = logits(inputs, router).softmax(-1)
    best = scores.unflatten(-1, (groups, -1)).amax(-1)
    weights, ids = within_best_groups(scores, best, chosen_groups).topk(top_k)
    return ids, weights * factor


def biased_sigmoid(inputs, router, *, top_k, factor, groups=1, chosen_groups=1):
    """DeepSeek-V3 and its kin: a bias takes part in the choice, not in the renormalised weight.

    A group is as good as its two best experts together, bias included.
    """
    scores = logits(inputs, router).sigmoid()
    biased = scores + router["selection_bias"]
    best = biased.unflatten(-1, (groups, -1)).topk(2).values.sum(-1)
    ids = within_best_groups(biased, best, chosen_groups).topk(top_k).indices
    weights = scores.gather(1, ids)
    return ids, weights / weights.sum(-1, keepdim=True) * factor


def biased_softmax(inputs, router, *, top_k):
    """Ernie 4.5: softmax scores, chosen with a bias, renormalised without it."""
    scores = logits(inputs, router).softmax(-1)
    ids = (scores + router["selection_bias"].flatten()).topk(top_k).indices
    weights = scores.gather(1, ids)
    return ids, weights / weights.sum(-1, keepdim=True).clamp(min=1e-12)


def gemma4(inputs, router, *, top_k, epsilon):
    """Gemma 4: own norm and scale of the input; renormalised softmax times the expert's scale."""
    size = inputs.shape[-1]
    normed = inputs / (inputs.square().mean(-1, keepdim=True) + epsilon).sqrt()
    ids, weights = softmax(
        normed * router["input_scale"] * size**-0.5, router, top_k=top_k, renormalise=True
    )
    return ids, weights * router["expert_scale"][ids]


def sparsemixer(inputs, router, *, jitter):
    """Phi-MoE (SparseMixer-v2, arXiv 2409.12136) outside training: two choices, one at a time.

    A choice's weight is its softmax among the experts that come within 2 * jitter of it, measured
    against the larger of the winner and their own size; the second is chosen without the first.
    """
    scores = logits(inputs, router)
    left, ids, weights = scores, [], []
    for _ in range(2):
        top, choice = left.max(-1, keepdim=True)
        far = (top - scores) / scores.abs().maximum(top) > 2 * jitter
        near = left.masked_fill(far, float("-inf")).softmax(-1)
        ids.append(choice)
        weights.append(near.gather(1, choice))
        left = left.scatter(1, choice, float("-inf"))
    return torch.cat(ids, 1), torch.cat(weights, 1)
