"""The same-token control: do domains differ beyond the words they are made of?

Domains have their own vocabularies, and a router that looks at the token alone then routes them
apart. Here every token is compared with its like: what a request's tokens got is set against what
the same token ids got on average over the run, and domains are compared by what is left. Only ids
that occur in two domains or more are compared; the average is over all their tokens, so every
domain is held against one and the same usage of its own words (indirect standardisation).

Chance is the exchange of domains over requests, with what is left of each request: the tokens of a
request share its noise, so they stay together. An id that lies almost wholly in one domain is its
own average there, so the control is too strict rather than too lax.

Source: Freedman and Lane (1983), A nonstochastic interpretation of reported significance levels,
for exchanging what a reduced model leaves.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["SameTokenUsage", "same_token_distance", "same_token_usage"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_CELLS = 1 << 22  # averages looked up at a time
_DRAWN = 1 << 23  # of the matrix that says which request is in which domain, at a time


@dataclass(frozen=True, slots=True)
class SameTokenUsage:
    """One layer: what is left of each request's gate weight beside its tokens' averages.

    num_compared: float64 [requests], tokens whose id occurs in several domains
    weight: float64 [requests], their gate weight
    excess: float64 [requests, experts], gate weight less what the same ids got on average
    share_compared: of all tokens, 0 to 1
    """

    num_compared: Floats
    weight: Floats
    excess: Floats
    share_compared: float


def same_token_usage(
    request: Ints,
    token_id: Ints,
    expert_ids: Ints,
    gate_weights: Floats,
    *,
    domain: Ints,
    num_experts: int,
) -> SameTokenUsage:
    """Compare every token with its like.

    Args:
        request: number of each token's request, [tokens].
        token_id: [tokens].
        expert_ids: what each token chose, [tokens, k].
        gate_weights: of each choice, [tokens, k].
        domain: of each request, [requests].
        num_experts: E.
    """
    _, word = np.unique(token_id, return_inverse=True)
    pairs = np.unique(np.stack([word, domain[request]]), axis=1)
    kept = (np.bincount(pairs[0], minlength=int(word.max(initial=-1)) + 1) > 1)[word]
    request, word = request[kept], word[kept]
    expert_ids, gate_weights = expert_ids[kept], gate_weights[kept]
    num_words, num_requests = int(word.max(initial=-1)) + 1, len(domain)
    average = _summed(word, expert_ids, gate_weights, num_words, num_experts)
    average /= np.maximum(np.bincount(word, minlength=num_words), 1)[:, None]
    excess = _summed(request, expert_ids, gate_weights, num_requests, num_experts)
    weight = excess.sum(axis=1)
    # Each word of a request once, with how often it occurs there.
    cells, count = np.unique(request * max(num_words, 1) + word, return_counts=True)
    for first in range(0, len(cells), max(1, _CELLS // num_experts)):
        part = slice(first, first + max(1, _CELLS // num_experts))
        owner, of_word = np.divmod(cells[part], num_words)
        np.subtract.at(excess, owner, average[of_word] * count[part, None])
    return SameTokenUsage(
        num_compared=np.bincount(request, minlength=num_requests).astype(np.float64),
        weight=weight,
        excess=excess,
        share_compared=float(kept.mean()) if len(kept) else 0.0,
    )


def same_token_distance(
    usage: SameTokenUsage,
    labels: npt.NDArray[np.integer],
    num_domains: int,
    weights: npt.NDArray[np.uint8] | None = None,
) -> Floats:
    """Mean distance of every two domains by what is left, float64 [draws]; NaN without a pair.

    Half the summed absolute differences of excess per token, over the mean gate weight of a token:
    on the scale of the ECI distance.

    Args:
        usage: from ``same_token_usage``.
        labels: domain of each request, [draws, requests]; of one draw for the same in all.
        num_domains: how many there are.
        weights: how often each request counts, [requests, draws]; None counts each once. Averages
            stay those of the run.
    """
    num_draws = len(labels) if weights is None else weights.shape[1]
    far, pairs = np.zeros(num_draws), np.zeros(num_draws)
    scale = usage.weight.sum() / max(usage.num_compared.sum(), 1)
    size = max(1, _DRAWN // max(1, len(usage.weight) * num_domains))
    for first in range(0, num_draws, size):
        part = slice(first, first + size)
        label = labels[part if len(labels) > 1 else slice(0, 1), None]
        counted = (label == np.arange(num_domains)[:, None]) * 1.0
        if weights is not None:
            counted = counted * weights.T[part, None]
        tokens = counted @ usage.num_compared
        left = counted @ usage.excess / np.maximum(tokens, 1)[..., None]
        for one in range(num_domains - 1):
            both = (tokens[:, one, None] > 0) & (tokens[:, one + 1 :] > 0)
            apart = np.abs(left[:, one, None] - left[:, one + 1 :]).sum(axis=2) / 2
            far[part] += (apart * both).sum(axis=1)
            pairs[part] += both.sum(axis=1)
    means = np.full(num_draws, np.nan)
    np.divide(far, pairs * scale, out=means, where=pairs * scale > 0)
    return means


def _summed(row: Ints, expert_ids: Ints, weights: Floats, num_rows: int, width: int) -> Floats:
    """Weights summed by row and expert, [num_rows, width]."""
    cells = (row[:, None] * width + expert_ids).ravel()
    sums = np.zeros(num_rows * width)
    sums += np.bincount(cells, weights.ravel(), num_rows * width)
    return sums.reshape(num_rows, width)
