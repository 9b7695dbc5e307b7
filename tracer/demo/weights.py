"""All tensors of a checkpoint, under the names that Hugging Face checkpoints use."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from tracer.demo.configs import ModelShape
from tracer.demo.constants import HIDDEN_SIZE, NUM_EXPERTS, OUTPUT_SCALE
from tracer.demo.embeddings import Array

__all__ = ["make_tensors"]

Tensors = dict[str, NDArray[np.float32]]


def make_tensors(
    rng: np.random.Generator,
    shape: ModelShape,
    embeddings: Array,
    head: Array,
    routers: dict[int, Array],
) -> Tensors:
    """Float32 tensors by name.

    Args:
        rng: source of all weights outside the plant; consumed.
        shape: sizes of the architecture.
        embeddings: shape (V, H).
        head: output rows, shape (V, H).
        routers: by layer id, shape (E, H); layers without one are dense.
    """
    tensors = {
        "model.embed_tokens.weight": embeddings,
        "model.norm.weight": np.ones(HIDDEN_SIZE),
        "lm_head.weight": head,
    }
    for layer_id in range(shape.num_layers):
        prefix = f"model.layers.{layer_id}"
        attention = _latent_attention if shape.latent_attention else _attention
        tensors |= attention(rng, shape, f"{prefix}.self_attn")
        tensors[f"{prefix}.input_layernorm.weight"] = np.ones(HIDDEN_SIZE)
        tensors[f"{prefix}.post_attention_layernorm.weight"] = np.ones(HIDDEN_SIZE)
        if layer_id in routers:
            tensors[f"{prefix}.mlp.gate.weight"] = routers[layer_id]
            for name, width in _experts(shape):
                tensors |= _mlp(rng, f"{prefix}.mlp.{name}", width)
        else:
            tensors |= _mlp(rng, f"{prefix}.mlp", shape.dense_width)
    return {name: np.ascontiguousarray(it, dtype=np.float32) for name, it in tensors.items()}


def _experts(shape: ModelShape) -> Iterator[tuple[str, int]]:
    for expert in range(NUM_EXPERTS):
        yield f"experts.{expert}", shape.expert_width
    if shape.num_shared_experts:
        # DeepSeek stores its shared experts as one MLP of their joint width.
        yield "shared_experts", shape.expert_width * shape.num_shared_experts


def _linear(rng: np.random.Generator, num_out: int, num_in: int, scale: float = 1.0) -> Array:
    """Keeps the root mean square of its input, times ``scale``."""
    weight: Array = scale / np.sqrt(num_in) * rng.standard_normal((num_out, num_in))
    return weight


def _mlp(rng: np.random.Generator, prefix: str, width: int) -> dict[str, Array]:
    return {
        f"{prefix}.gate_proj.weight": _linear(rng, width, HIDDEN_SIZE),
        f"{prefix}.up_proj.weight": _linear(rng, width, HIDDEN_SIZE),
        f"{prefix}.down_proj.weight": _linear(rng, HIDDEN_SIZE, width, OUTPUT_SCALE),
    }


def _attention(rng: np.random.Generator, shape: ModelShape, prefix: str) -> dict[str, Array]:
    queries = shape.num_heads * shape.head_size
    keys = shape.num_key_value_heads * shape.head_size
    # OLMoE normalises all heads together, Qwen3 each head by itself.
    joint = shape.joint_head_norm
    return {
        f"{prefix}.q_proj.weight": _linear(rng, queries, HIDDEN_SIZE),
        f"{prefix}.k_proj.weight": _linear(rng, keys, HIDDEN_SIZE),
        f"{prefix}.v_proj.weight": _linear(rng, keys, HIDDEN_SIZE),
        f"{prefix}.o_proj.weight": _linear(rng, HIDDEN_SIZE, queries, OUTPUT_SCALE),
        f"{prefix}.q_norm.weight": np.ones(queries if joint else shape.head_size),
        f"{prefix}.k_norm.weight": np.ones(keys if joint else shape.head_size),
    }


def _latent_attention(rng: np.random.Generator, shape: ModelShape, prefix: str) -> dict[str, Array]:
    """Multi-head latent attention of DeepSeek-V2, without low-rank queries."""
    latent, rotary, plain = shape.latent_size, shape.rotary_size, shape.head_size
    heads = shape.num_heads
    return {
        f"{prefix}.q_proj.weight": _linear(rng, heads * (plain + rotary), HIDDEN_SIZE),
        f"{prefix}.kv_a_proj_with_mqa.weight": _linear(rng, latent + rotary, HIDDEN_SIZE),
        f"{prefix}.kv_a_layernorm.weight": np.ones(latent),
        f"{prefix}.kv_b_proj.weight": _linear(rng, heads * 2 * plain, latent),
        f"{prefix}.o_proj.weight": _linear(rng, HIDDEN_SIZE, heads * plain, OUTPUT_SCALE),
    }
