"""The two models that cost is measured on, written by seed, nothing downloaded.

``tiny`` is the planted demo model: so little arithmetic per token that any recording shows.
``mid`` is a random OLMoE at a quarter of OLMoE-1B-7B's width and half its depth, with as many
experts and choices; a model that is served does more arithmetic per recorded byte than either.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tracer.demo import write_demo_model
from tracer.errors import EngineMissingError

__all__ = ["MODEL_SIZES", "VOCABULARY", "write_model"]

MODEL_SIZES = ("mid", "tiny")
# Token ids that both models know lie in 3..VOCABULARY-1; the first three are special.
VOCABULARY = 512

_HIDDEN = 512
_LAYERS = 8
_HEADS = 8
_EXPERTS = 64
_TOP_K = 8
_EXPERT_WIDTH = 256  # half of the hidden size, as in OLMoE-1B-7B
_CONTEXT = 4096
_WORDS = 4096


def write_model(size: str, folder: Path) -> None:
    """Write the checkpoint of ``size`` (mid or tiny) into the empty or missing ``folder``.

    Raises:
        EngineMissingError: the libraries of the engine extra are not installed.
    """
    if size == "tiny":
        write_demo_model(folder, seed=0)
        return
    try:
        from safetensors.numpy import save_file
    except ImportError as error:
        raise EngineMissingError("the library 'safetensors' is not installed") from error
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "architectures": ["OlmoeForCausalLM"],
        "model_type": "olmoe",
        "vocab_size": _WORDS,
        "hidden_size": _HIDDEN,
        "intermediate_size": _EXPERT_WIDTH,
        "num_hidden_layers": _LAYERS,
        "num_attention_heads": _HEADS,
        "num_key_value_heads": _HEADS,
        "num_experts": _EXPERTS,
        "num_experts_per_tok": _TOP_K,
        "norm_topk_prob": False,
        "hidden_act": "silu",
        "max_position_embeddings": _CONTEXT,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "torch_dtype": "float16",
        "tie_word_embeddings": False,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    save_file(dict(_tensors(0)), folder / "model.safetensors", metadata={"format": "pt"})


def _tensors(seed: int) -> Iterator[tuple[str, npt.NDArray[np.float16]]]:
    """Tensors by checkpoint name; each keeps the scale of its input, so logits are of order 1."""
    rng = np.random.default_rng(seed)

    def linear(rows: int, columns: int) -> npt.NDArray[np.float16]:
        values = rng.standard_normal((rows, columns), dtype=np.float32)
        return (values / np.float32(np.sqrt(columns))).astype(np.float16)

    ones = np.ones(_HIDDEN, dtype=np.float16)
    yield "model.embed_tokens.weight", linear(_WORDS, _HIDDEN)
    yield "lm_head.weight", linear(_WORDS, _HIDDEN)
    yield "model.norm.weight", ones
    for layer in range(_LAYERS):
        prefix = f"model.layers.{layer}"
        for name in ("input_layernorm", "post_attention_layernorm"):
            yield f"{prefix}.{name}.weight", ones
        for name in ("q_norm", "k_norm"):
            yield f"{prefix}.self_attn.{name}.weight", ones
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            yield f"{prefix}.self_attn.{name}.weight", linear(_HIDDEN, _HIDDEN)
        yield f"{prefix}.mlp.gate.weight", linear(_EXPERTS, _HIDDEN)
        for expert in range(_EXPERTS):
            mlp = f"{prefix}.mlp.experts.{expert}"
            yield f"{mlp}.gate_proj.weight", linear(_EXPERT_WIDTH, _HIDDEN)
            yield f"{mlp}.up_proj.weight", linear(_EXPERT_WIDTH, _HIDDEN)
            yield f"{mlp}.down_proj.weight", linear(_HIDDEN, _EXPERT_WIDTH)
