"""Made-up routing that compresses, sums and sorts like that of a real model; no model is run.

Each layer has experts of Zipf-like popularity with a small committee on top, some that a domain
prefers, a part that follows the token, a part that follows the request, and noise, whose scale sets
the entropy of the ids. Logits are rounded to bfloat16 as those of a bfloat16 model are.
"""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from tracer.store.choices import round_mantissa
from tracer.store.shard_rows import ShardRows, TracedRequest

__all__ = ["MADE_MODELS", "NUM_DOMAINS", "MadeModel", "MadeRouting", "make_routing"]

NUM_DOMAINS = 14

_SEED = 20_260
_BF16_SHIFT = 16
_SMALL_ID = 255  # what is all ones stands for no expert in a record
_CHUNK = 1 << 22  # logits made at a time
# Lengths are lognormal: median, spread, least, most.
_PROMPT = (200, 0.5, 40, 1500)
_GENERATED = (100, 0.7, 8, 512)
_OWN_WORDS = 0.35  # share of a domain's tokens that are words of its own
_HIDDEN = 16
_ZIPF = 0.35
_OF_REQUEST, _NOISE = np.float32(0.4), np.float32(0.6)  # beside a part of 1 that follows the token
_PREFERRED = 0.08  # share of experts that a domain prefers


@dataclass(frozen=True, slots=True)
class MadeModel:
    """The shape of a model; renormalised: whether the chosen weights sum to 1."""

    num_layers: int
    num_experts: int
    top_k: int
    vocabulary: int
    renormalised: bool


MADE_MODELS = {
    "olmoe": MadeModel(16, 64, 8, 50_304, renormalised=False),  # OLMoE-1B-7B
    "qwen3": MadeModel(48, 128, 8, 151_936, renormalised=True),  # Qwen3-30B-A3B
}


@dataclass(frozen=True, slots=True)
class MadeRouting:
    """Finished requests of a model as a capture's row log holds them.

    rows: views of one block of records, see ``ShardRows``; ids uint8 where they fit, weights uint16
    block: the records, uint8 [n, bytes of a record]
    """

    model: MadeModel
    rows: ShardRows
    block: npt.NDArray[np.uint8]

    @property
    def num_choices(self) -> int:
        """Chosen experts of all tokens and layers."""
        return self.rows.expert_ids.size

    def batch(self, number: int) -> ShardRows:
        """The same rows as those of other requests."""
        requests = [
            replace(request, request_id=f"{number:06d}-{request.request_id}")
            for request in self.rows.requests
        ]
        return replace(self.rows, requests=requests)


def make_routing(model: MadeModel, num_tokens: int) -> MadeRouting:
    """Routing of ``num_tokens`` tokens; the same for the same arguments."""
    rng = np.random.default_rng(_SEED)
    prompts, lengths = _lengths(rng, num_tokens)
    domains = rng.integers(NUM_DOMAINS, size=len(lengths))
    request = np.repeat(np.arange(len(lengths)), lengths)
    tokens = _tokens(rng, model.vocabulary, domains[request])
    ids = np.uint8 if model.num_experts <= _SMALL_ID else np.int16
    choices = (model.num_layers, model.top_k)
    record = np.dtype(
        [
            ("gate_weights", np.uint16, choices),
            ("expert_ids", ids, choices),
            ("position", np.int32),
            ("token_id", np.int32),
        ]
    )
    block = np.zeros(num_tokens, dtype=record)
    starts = np.cumsum(lengths) - lengths
    block["position"] = np.arange(num_tokens) - np.repeat(starts, lengths)
    block["token_id"] = tokens
    _route(rng, model, domains[request], request, block)
    requests = [
        TracedRequest(
            f"domain-{domain:02d}-{number:06d}",
            f"domain-{domain:02d}",
            int(min(prompt, length)),
            # The last sampled token is never forwarded: it has no row.
            np.append(tokens[start : start + length], np.int32(0)),
            int(length),
        )
        for number, (domain, prompt, length, start) in enumerate(
            zip(domains, prompts, lengths, starts, strict=True)
        )
    ]
    rows = ShardRows(
        range(model.num_layers),
        requests,
        block["position"],
        block["expert_ids"],
        block["gate_weights"],
    )
    return MadeRouting(model, rows, block.view(np.uint8).reshape(num_tokens, record.itemsize))


def _lengths(
    rng: np.random.Generator, num_tokens: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Tokens of each request's prompt, and its rows: int64 [requests]; the last one is cut off."""

    def drawn(median: int, spread: float, least: int, most: int) -> npt.NDArray[np.int64]:
        lengths = rng.lognormal(np.log(median), spread, size=1 + num_tokens // _PROMPT[2])
        return np.clip(lengths, least, most).astype(np.int64)

    prompts = drawn(*_PROMPT)
    ends = np.cumsum(prompts + drawn(*_GENERATED))
    count = int(np.searchsorted(ends, num_tokens)) + 1
    ends = np.minimum(ends[:count], num_tokens)
    return prompts[:count], np.diff(ends, prepend=0)


def _tokens(
    rng: np.random.Generator, vocabulary: int, domain: npt.NDArray[np.int64]
) -> npt.NDArray[np.int32]:
    """Token ids whose ranks follow Zipf's law; some ranks are a domain's own words."""
    rank = np.exp(rng.random(len(domain)) * np.log(vocabulary)).astype(np.int64) - 1
    words = np.stack([rng.permutation(vocabulary) for _ in range(NUM_DOMAINS + 1)])
    own = rng.random(len(domain)) < _OWN_WORDS
    ids: npt.NDArray[np.int32] = words[np.where(own, domain, NUM_DOMAINS), rank].astype(np.int32)
    return ids


def _route(
    rng: np.random.Generator,
    model: MadeModel,
    domain: npt.NDArray[np.int64],
    request: npt.NDArray[np.int64],
    block: npt.NDArray[np.void],
) -> None:
    """Fill ``block`` with the choices of each token; ``domain`` and ``request`` are of tokens."""
    experts, tokens = model.num_experts, block["token_id"]
    scale = np.float32(1 / np.sqrt(_HIDDEN))

    def vectors(*shape: int) -> npt.NDArray[np.float32]:
        return rng.standard_normal((*shape, _HIDDEN), dtype=np.float32) * scale

    token_vectors, request_vectors = vectors(model.vocabulary), vectors(int(request[-1]) + 1)
    step = max(1, _CHUNK // experts)
    for layer in range(model.num_layers):
        matrix = rng.standard_normal((_HIDDEN, experts), dtype=np.float32)
        popular = -_ZIPF * np.log(rng.permutation(experts) + 1)
        committee = rng.permutation(experts)[: rng.integers(2, 6)]
        popular[committee] += rng.uniform(0.8, 1.8, len(committee))
        liked = rng.random((NUM_DOMAINS, experts)) < _PREFERRED
        base = popular + liked * rng.uniform(0.8, 2.0, (NUM_DOMAINS, experts))
        base = base.astype(np.float32)
        for first in range(0, len(tokens), step):
            part = slice(first, first + step)
            mixed = token_vectors[tokens[part]] + _OF_REQUEST * request_vectors[request[part]]
            logits: npt.NDArray[np.float32] = base[domain[part]] + mixed @ matrix
            logits += _NOISE * rng.standard_normal(logits.shape, dtype=np.float32)
            ids, weights = _chosen(model, round_mantissa(logits, _BF16_SHIFT))
            block["expert_ids"][part, layer] = ids
            bits = round_mantissa(weights, _BF16_SHIFT).view(np.uint32)
            block["gate_weights"][part, layer] = bits >> np.uint32(_BF16_SHIFT)


def _chosen(
    model: MadeModel, logits: npt.NDArray[np.float32]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Ids and softmax weights of the ``top_k`` largest logits, descending: [n, top_k]."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    ids = np.argpartition(powers, -model.top_k, axis=1)[:, -model.top_k :]
    order = np.argsort(-np.take_along_axis(powers, ids, axis=1), axis=1)
    ids = np.take_along_axis(ids, order, axis=1)
    weights = np.take_along_axis(powers, ids, axis=1)
    whole = weights if model.renormalised else powers
    return ids, weights / whole.sum(axis=1, keepdims=True)
