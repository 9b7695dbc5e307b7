"""Sizes and ``config.json`` of each demo architecture."""

from dataclasses import dataclass
from typing import Any

from tracer.demo.constants import (
    ARCHITECTURES,
    CONTEXT_LENGTH,
    HIDDEN_SIZE,
    NUM_EXPERTS,
    NUM_MOE_LAYERS,
    TOP_K,
)
from tracer.demo.tokens import BOS_ID, EOS_ID, PAD_ID
from tracer.errors import InputError

__all__ = ["ModelShape", "generation_config", "model_config", "model_shape"]


@dataclass(frozen=True, slots=True)
class ModelShape:
    """Sizes of one architecture.

    num_layers: all layers; the first ``first_moe_layer`` of them are dense
    head_size: of queries, keys and values, with latent attention without the rotary part
    latent_size, rotary_size: 0 without latent attention
    joint_head_norm: query and key norms span all heads
    """

    num_layers: int = NUM_MOE_LAYERS
    first_moe_layer: int = 0
    num_heads: int = 4
    num_key_value_heads: int = 4
    head_size: int = 32
    latent_attention: bool = False
    latent_size: int = 0
    rotary_size: int = 0
    joint_head_norm: bool = False
    expert_width: int = 32
    num_shared_experts: int = 0
    dense_width: int = 128

    @property
    def moe_layers(self) -> tuple[int, ...]:
        """Ids of the layers that have a router."""
        return tuple(range(self.first_moe_layer, self.num_layers))


_SHAPES = {
    "olmoe": ModelShape(joint_head_norm=True),
    "qwen3_moe": ModelShape(num_key_value_heads=2),
    # vLLM's latent attention kernels are built for a latent of 512 and 64 rotary dimensions.
    "deepseek_v2": ModelShape(
        num_layers=NUM_MOE_LAYERS + 1,
        first_moe_layer=1,
        latent_attention=True,
        latent_size=512,
        rotary_size=64,
        num_shared_experts=2,
    ),
}


def model_shape(architecture: str) -> ModelShape:
    """Sizes of ``architecture``.

    Raises:
        InputError: there is no such demo architecture.
    """
    if architecture not in _SHAPES:
        raise InputError(
            f"there is no demo model of architecture {architecture!r}",
            f"choose one of: {', '.join(ARCHITECTURES)}.",
        )
    return _SHAPES[architecture]


def model_config(architecture: str, vocab_size: int) -> dict[str, Any]:
    """The ``config.json`` of ``architecture`` for ``vocab_size`` tokens."""
    shape = model_shape(architecture)
    common = {
        "model_type": architecture,
        "vocab_size": vocab_size,
        "hidden_size": HIDDEN_SIZE,
        "num_hidden_layers": shape.num_layers,
        "num_attention_heads": shape.num_heads,
        "num_key_value_heads": shape.num_key_value_heads,
        "num_experts_per_tok": TOP_K,
        "hidden_act": "silu",
        "max_position_embeddings": CONTEXT_LENGTH,
        "rms_norm_eps": 1e-6,
        # Two spellings each: transformers 5 reads the second, older versions the first.
        "rope_theta": 10000.0,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
        "torch_dtype": "float32",
        "dtype": "float32",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "initializer_range": 0.02,
        "tie_word_embeddings": False,
        "use_cache": True,
        "pad_token_id": PAD_ID,
        "bos_token_id": BOS_ID,
        "eos_token_id": EOS_ID,
    }
    own = {"olmoe": _olmoe, "qwen3_moe": _qwen3_moe, "deepseek_v2": _deepseek_v2}[architecture]
    return common | own(shape)


def generation_config() -> dict[str, Any]:
    """The ``generation_config.json`` of every demo model."""
    return {"pad_token_id": PAD_ID, "bos_token_id": BOS_ID, "eos_token_id": EOS_ID}


def _olmoe(shape: ModelShape) -> dict[str, Any]:
    return {
        "architectures": ["OlmoeForCausalLM"],
        "intermediate_size": shape.expert_width,
        "num_experts": NUM_EXPERTS,
        "norm_topk_prob": False,
        "clip_qkv": None,
    }


def _qwen3_moe(shape: ModelShape) -> dict[str, Any]:
    return {
        "architectures": ["Qwen3MoeForCausalLM"],
        "head_dim": shape.head_size,
        "intermediate_size": shape.dense_width,
        "moe_intermediate_size": shape.expert_width,
        "num_experts": NUM_EXPERTS,
        "norm_topk_prob": True,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
        "use_sliding_window": False,
    }


def _deepseek_v2(shape: ModelShape) -> dict[str, Any]:
    return {
        "architectures": ["DeepseekV2ForCausalLM"],
        "intermediate_size": shape.dense_width,
        "moe_intermediate_size": shape.expert_width,
        "n_routed_experts": NUM_EXPERTS,
        "n_shared_experts": shape.num_shared_experts,
        "first_k_dense_replace": shape.first_moe_layer,
        "moe_layer_freq": 1,
        "scoring_func": "softmax",
        "topk_method": "greedy",
        "n_group": 1,
        "topk_group": 1,
        "norm_topk_prob": False,
        "routed_scaling_factor": 1.0,
        "q_lora_rank": None,
        "kv_lora_rank": shape.latent_size,
        "qk_rope_head_dim": shape.rotary_size,
        "qk_nope_head_dim": shape.head_size,
        "v_head_dim": shape.head_size,
    }
