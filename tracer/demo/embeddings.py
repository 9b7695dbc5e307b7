"""Token embeddings, router rows and the output head that carry the plant."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from tracer.demo.constants import (
    DOMAIN_SHARE,
    HEAD_SCALE,
    HIDDEN_SIZE,
    LOGIT_NOISE,
    SHARED_SHARE,
)
from tracer.demo.design import LayerDesign
from tracer.demo.tokens import TokenTable, Word, word_ids

__all__ = ["Directions", "draw_directions", "embed_tokens", "output_head", "router_weight"]

Array: TypeAlias = NDArray[np.float64]

# Likeness of a variant's own noise to that of its word, so that "The" acts like " the".
_VARIANT_LIKENESS = 0.9
_BALANCE_ROUNDS = 200


@dataclass(frozen=True, slots=True)
class Directions:
    """Orthonormal directions of the hidden space, float64.

    shared: u, shape (H,)
    domains: v_d as rows, shape (D, H)
    rest: a basis of everything orthogonal to those as rows, shape (H - 1 - D, H)
    """

    shared: Array
    domains: Array
    rest: Array


def draw_directions(rng: np.random.Generator, num_domains: int) -> Directions:
    """A random orthonormal basis of the hidden space."""
    basis = np.linalg.qr(rng.standard_normal((HIDDEN_SIZE, HIDDEN_SIZE)))[0].T
    return Directions(basis[0], basis[1 : 1 + num_domains], basis[1 + num_domains :])


def embed_tokens(rng: np.random.Generator, table: TokenTable, directions: Directions) -> Array:
    """Embeddings of all tokens, shape (V, H), each of root mean square 1.

    Args:
        rng: source of the tokens' own noise; consumed.
        table: the tokens.
        directions: u, v_d and the space of the noise.
    """
    embeddings = np.zeros((len(table.texts), HIDDEN_SIZE))
    for words, domain in zip(table.domain_words, directions.domains, strict=True):
        noise = _balanced(_word_noise(rng, words, len(directions.rest)))
        left = np.sqrt(1 - SHARED_SHARE**2 - DOMAIN_SHARE**2)
        embeddings[word_ids(words)] = (
            SHARED_SHARE * directions.shared
            + DOMAIN_SHARE * domain
            + left * noise @ directions.rest
        )
    ids = word_ids(table.neutral_words) + list(table.other)
    noise = np.concatenate(
        [
            _word_noise(rng, table.neutral_words, len(directions.rest)),
            _unit_rows(rng.standard_normal((len(table.other), len(directions.rest)))),
        ]
    )
    left = np.sqrt(1 - SHARED_SHARE**2)
    embeddings[ids] = SHARED_SHARE * directions.shared + left * _balanced(noise) @ directions.rest
    # A vector of norm sqrt(H) has root mean square 1: the model's norm leaves it as it is.
    embeddings *= np.sqrt(HIDDEN_SIZE)
    return embeddings


def _unit_rows(rows: Array) -> Array:
    unit: Array = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit


def _word_noise(rng: np.random.Generator, words: Sequence[Word], width: int) -> Array:
    """Unit vectors in the order of ``word_ids``; variants resemble their word."""
    canonical = _unit_rows(rng.standard_normal((len(words), width)))
    parents = [index for index, word in enumerate(words) for _ in word.variants]
    fresh = _unit_rows(rng.standard_normal((len(parents), width)))
    blend = _VARIANT_LIKENESS * canonical[parents] + np.sqrt(1 - _VARIANT_LIKENESS**2) * fresh
    return np.concatenate([canonical, _unit_rows(blend)])


def _balanced(noise: Array) -> Array:
    """Shift unit vectors until their mean is zero, so that mean logits are as designed."""
    for _ in range(_BALANCE_ROUNDS):
        noise = _unit_rows(noise - noise.mean(axis=0))
    return noise


def router_weight(rng: np.random.Generator, design: LayerDesign, directions: Directions) -> Array:
    """Router rows of one layer, shape (E, H), that give embeddings the designed logits."""
    neutral = np.array(design.neutral)
    gain = np.array(design.by_domain) - neutral
    noise = _unit_rows(rng.standard_normal((len(neutral), len(directions.rest))))
    # Two random unit vectors of n dimensions have an inner product of deviation 1/sqrt(n).
    left = np.sqrt(1 - SHARED_SHARE**2 - DOMAIN_SHARE**2)
    noise *= LOGIT_NOISE / left * np.sqrt(len(directions.rest))
    rows: Array = (
        np.outer(neutral / SHARED_SHARE, directions.shared)
        + (gain / DOMAIN_SHARE).T @ directions.domains
        + noise @ directions.rest
    )
    rows /= np.sqrt(HIDDEN_SIZE)
    return rows


def output_head(
    rng: np.random.Generator, table: TokenTable, embeddings: Array, directions: Directions
) -> Array:
    """Output rows, shape (V, H): after a word comes the next of a cycle through its domain.

    Neutral words have a cycle of their own, and unknown text is followed by neutral words.
    All other rows are zero, so no special token, byte or variant is ever the most likely one.
    """
    head = np.zeros_like(embeddings)
    for words in (*table.domain_words, table.neutral_words):
        cycle = rng.permutation([word.canonical for word in words])
        rows = embeddings[cycle]
        if words is not table.neutral_words:
            # Half of u less: what is common to all tokens speaks for neutral words.
            rows = rows - 0.5 * np.outer(rows @ directions.shared, directions.shared)
        head[np.roll(cycle, -1)] = HEAD_SCALE * rows
    return head
