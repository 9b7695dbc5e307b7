"""One tiny random checkpoint per MoE architecture that vLLM starts on a CPU, and its routing.

Sizes are small, everything else is as in released checkpoints: groups, biases and factors are
there and not trivial, so that leaving one out changes ids or weights. Routers are drawn wide,
since Transformers starts them nearly uniform, or at zero.
"""

import functools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tests.engine import routing_definitions as by_definition

NUM_EXPERTS = 16
TOP_K = 4
FACTOR = 2.5

COMMON = {
    "hidden_size": 128, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "num_experts_per_tok": TOP_K,
    "max_position_embeddings": 1024, "tie_word_embeddings": False, "dtype": "float32",
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
EXPERTS = {"num_experts": NUM_EXPERTS}
LOCAL = {"num_local_experts": NUM_EXPERTS}
NARROW = {"moe_intermediate_size": 32}
HEADS = {"head_dim": 32}
ONE_DENSE = {"num_hidden_layers": 3, "first_k_dense_replace": 1}
DEEPSEEK = {
    "n_routed_experts": NUM_EXPERTS, "n_shared_experts": 1, "norm_topk_prob": True,
    "routed_scaling_factor": FACTOR, "n_group": 1, "topk_group": 1, **NARROW, **ONE_DENSE,
}  # fmt: skip
# vLLM's latent attention kernels are built for a latent of 512 and 64 rotary dimensions.
LATENT = {
    "kv_lora_rank": 512, "q_lora_rank": None, "qk_rope_head_dim": 64, "qk_nope_head_dim": 32,
    "v_head_dim": 32, "num_key_value_heads": 4,
}  # fmt: skip
GATE = {"weight": "mlp.gate.weight"}
BIASED_GATE = {**GATE, "selection_bias": "mlp.gate.e_score_correction_bias"}
BLOCK_ROUTER = ({"weight": "block_sparse_moe.router.weight"}, "block_sparse_moe.router")


@dataclass(frozen=True)
class Facts:
    """What `runs` must say of the weights."""

    scoring_function: str = "softmax"
    renormalised: bool | None = True
    routed_scaling_factor: float = 1.0
    weight_convention: str = "unscaled"
    num_shared_experts: int = 0


@dataclass(frozen=True)
class Architecture:
    """How to build a checkpoint, and what its routing must be.

    name: as readers know it; model_type, config: for Transformers
    router: role -> parameter, after ``model.layers.N.``
    gate: module whose input is the router input, after ``model.layers.N.``
    definition: (router inputs [n, H], parameters by role) -> (ids, weights)
    zero: roles whose parameter is zero
    model_class: architecture to name in config.json, where Transformers' own is not vLLM's
    note: for the table in the docs
    """

    name: str
    model_type: str
    config: Mapping[str, Any]
    definition: Callable[..., Any]
    facts: Facts = field(default_factory=Facts)
    router: Mapping[str, str] = field(default_factory=lambda: GATE)
    gate: str = "mlp.gate"
    top_k: int = TOP_K
    model_class: str | None = None
    zero: tuple[str, ...] = ()
    note: str = ""


def plain(*, renormalise):
    return functools.partial(by_definition.softmax, top_k=TOP_K, renormalise=renormalise)


def biased(factor=FACTOR, **groups):
    return functools.partial(by_definition.biased_sigmoid, top_k=TOP_K, factor=factor, **groups)


chosen_softmax = functools.partial(by_definition.top_then_softmax, top_k=TOP_K)
not_renormalised = Facts(renormalised=False)
after = Facts("sigmoid", routed_scaling_factor=FACTOR, num_shared_experts=1)
inside = replace(after, weight_convention="scaled")

ARCHITECTURES = (
    Architecture("OLMoE", "olmoe", EXPERTS, plain(renormalise=False), not_renormalised),
    Architecture(
        "FlexOlmo", "flex_olmo", EXPERTS, plain(renormalise=False), not_renormalised,
        note="vLLM's Transformers backend, routed by vLLM",
    ),
    Architecture(
        "Qwen2-MoE", "qwen2_moe", {**EXPERTS, **NARROW, "shared_expert_intermediate_size": 32},
        plain(renormalise=False), Facts(renormalised=False, num_shared_experts=1),
    ),
    Architecture(
        "Qwen3-MoE", "qwen3_moe", {**EXPERTS, **NARROW, **HEADS, "norm_topk_prob": True},
        plain(renormalise=True),
    ),
    Architecture(
        "Qwen3-Next", "qwen3_next",
        {**EXPERTS, **NARROW, **HEADS, "shared_expert_intermediate_size": 32,
         "layer_types": ["full_attention"] * 2},
        plain(renormalise=True), Facts(num_shared_experts=1),
        note="full attention only: linear attention needs bfloat16 on a CPU",
    ),
    Architecture("Mixtral", "mixtral", LOCAL, plain(renormalise=True)),
    Architecture(
        "MiniMax-Text-01", "minimax",
        {**LOCAL, **HEADS, "layer_types": ["full_attention"] * 2}, plain(renormalise=True),
        note="full attention only; vLLM's Transformers backend, routed by vLLM",
    ),
    Architecture(
        "Jamba", "jamba",
        {**EXPERTS, "num_hidden_layers": 4, "attn_layer_period": 1, "attn_layer_offset": 0,
         "expert_layer_period": 2, "expert_layer_offset": 1},
        plain(renormalise=False), not_renormalised,
        router={"weight": "feed_forward.router.weight"}, gate="feed_forward.router",
        note="attention only: Mamba-1 has no CPU kernel in vLLM",
    ),
    Architecture(
        "DeepSeek-V2", "deepseek_v2",
        {**DEEPSEEK, **LATENT, "norm_topk_prob": False, "n_group": 4, "topk_group": 2,
         "topk_method": "group_limited_greedy"},
        functools.partial(by_definition.grouped_softmax, top_k=TOP_K, groups=4, chosen_groups=2,
                          factor=FACTOR),
        Facts(renormalised=False, routed_scaling_factor=FACTOR, num_shared_experts=1),
        note="groups",
    ),
    Architecture(
        "DeepSeek-V3", "deepseek_v3",
        {**DEEPSEEK, **LATENT, "n_group": 4, "topk_group": 2, "topk_method": "noaux_tc",
         "scoring_func": "sigmoid"},
        biased(groups=4, chosen_groups=2), after, BIASED_GATE, note="groups, selection bias",
    ),
    Architecture(
        "GLM-4-MoE", "glm4_moe", {**DEEPSEEK, **HEADS}, biased(), after, BIASED_GATE,
        note="selection bias",
    ),
    Architecture(
        "GLM-4-MoE-Lite", "glm4_moe_lite",
        {**DEEPSEEK, **LATENT, "topk_method": "noaux_tc",
         "mlp_layer_types": ["dense", "sparse", "sparse"]},
        biased(), after, BIASED_GATE, note="selection bias",
    ),
    Architecture(
        "Dots1", "dots1", {**DEEPSEEK, **HEADS}, biased(), after, BIASED_GATE,
        note="selection bias; vLLM's Transformers backend, routed by vLLM",
    ),
    Architecture(
        "EXAONE-MoE", "exaone_moe",
        {**EXPERTS, **NARROW, **HEADS, **ONE_DENSE, "num_shared_experts": 1, "n_group": 1,
         "topk_group": 1, "routed_scaling_factor": FACTOR},
        biased(), inside, BIASED_GATE, note="selection bias",
    ),
    Architecture(
        "AFMoE", "afmoe",
        {**EXPERTS, **NARROW, **HEADS, "num_hidden_layers": 3, "num_dense_layers": 1,
         "num_shared_experts": 1, "n_group": 1, "topk_group": 1, "route_scale": FACTOR,
         "score_func": "sigmoid", "route_norm": True},
        biased(), inside,
        {"weight": "mlp.router.gate.weight", "selection_bias": "mlp.expert_bias"},
        "mlp.router.gate", note="selection bias",
    ),
    Architecture(
        "Hunyuan-V3", "hy_v3",
        {**EXPERTS, **NARROW, **HEADS, **ONE_DENSE, "num_shared_experts": 1,
         "expert_hidden_dim": 32, "route_norm": True, "qk_norm": True,
         "router_scaling_factor": FACTOR},
        biased(), inside, {**GATE, "selection_bias": "mlp.e_score_correction_bias"},
        note="selection bias",
    ),
    Architecture(
        "LFM2-MoE", "lfm2_moe",
        {**EXPERTS, **NARROW, "num_hidden_layers": 3, "num_dense_layers": 1,
         "layer_types": ["conv", "full_attention", "conv"], "routed_scaling_factor": FACTOR},
        biased(),
        Facts("sigmoid", routed_scaling_factor=FACTOR, weight_convention="scaled"),
        {"weight": "feed_forward.gate.weight", "selection_bias": "feed_forward.expert_bias"},
        "feed_forward.gate", note="selection bias",
    ),
    Architecture(
        "GPT-OSS", "gpt_oss", {**LOCAL, **HEADS}, chosen_softmax,
        router={"weight": "mlp.router.weight", "bias": "mlp.router.bias"},
        gate="mlp.router", note="unquantised; logits have a bias",
    ),
    Architecture(
        "Granite-MoE", "granitemoe", LOCAL, chosen_softmax, Facts(), *BLOCK_ROUTER,
    ),
    Architecture(
        "Granite-MoE shared", "granitemoeshared", {**LOCAL, "shared_intermediate_size": 64},
        chosen_softmax, Facts(num_shared_experts=1), *BLOCK_ROUTER,
    ),
    Architecture(
        "Granite-MoE hybrid", "granitemoehybrid",
        {**LOCAL, "shared_intermediate_size": 64, "layer_types": ["mamba", "attention"],
         "mamba_n_heads": 8, "mamba_d_head": 32, "mamba_n_groups": 1, "mamba_d_state": 16,
         "mamba_chunk_size": 64},
        chosen_softmax, Facts(num_shared_experts=1), *BLOCK_ROUTER,
        note="Mamba-2 and attention",
    ),
    Architecture(
        "Hunyuan-V1-MoE", "hunyuan_v1_moe", {**EXPERTS, **HEADS, "moe_topk": [TOP_K] * 2},
        plain(renormalise=True), Facts(num_shared_experts=1), {"weight": "mlp.gate.wg.weight"},
        note="vLLM's Transformers backend, routed by Transformers",
    ),
    Architecture(
        "Ernie 4.5", "ernie4_5_moe",
        {"moe_num_experts": NUM_EXPERTS, "moe_k": TOP_K, "moe_num_shared_experts": 1,
         "moe_layer_start_index": 1, "num_hidden_layers": 3, **NARROW},
        functools.partial(by_definition.biased_softmax, top_k=TOP_K),
        Facts(num_shared_experts=1),
        {**GATE, "selection_bias": "mlp.gate.moe_statics.e_score_correction_bias"},
        zero=("selection_bias",),
        note="selection bias zero: another is refused on a CPU, where vLLM ignores it",
    ),
    Architecture(
        "Cohere 2 MoE", "cohere2_moe",
        {**EXPERTS, "num_shared_experts": 1, "expert_selection_fn": "sigmoid",
         "norm_topk_prob": False},
        functools.partial(by_definition.top_then_sigmoid, top_k=TOP_K),
        Facts("sigmoid", renormalised=False, num_shared_experts=1),
    ),
    Architecture(
        "Llama 4", "llama4_text",
        {**LOCAL, **HEADS, "num_experts_per_tok": 1, "interleave_moe_layer_step": 1,
         "intermediate_size_mlp": 64, "attention_chunk_size": 512},
        functools.partial(by_definition.top_then_sigmoid, top_k=1),
        Facts("sigmoid", renormalised=False, num_shared_experts=1),
        {"weight": "feed_forward.router.weight"}, "feed_forward.router", top_k=1,
        note="weights multiply the experts' input",
    ),
    Architecture(
        "Gemma 4", "gemma4_text",
        {**EXPERTS, **NARROW, **HEADS, "global_head_dim": 32, "enable_moe_block": True,
         "top_k_experts": TOP_K, "hidden_size_per_layer_input": 0,
         "layer_types": ["sliding_attention", "full_attention"]},
        functools.partial(by_definition.gemma4, top_k=TOP_K, epsilon=1e-6),
        Facts("softmax_expert_scale", renormalised=False),
        {"weight": "router.proj.weight", "input_scale": "router.scale",
         "expert_scale": "router.per_expert_scale"},
        "router", note="weights contain a learned scale of each expert",
    ),
    Architecture(
        "Phi-MoE", "phimoe",
        {**LOCAL, "num_experts_per_tok": 2, "attention_bias": True, "lm_head_bias": True},
        functools.partial(by_definition.sparsemixer, jitter=0.01),
        Facts("sparsemixer", renormalised=False),
        {"weight": "mlp.router.weight"}, "mlp.router", 2, model_class="PhiMoEForCausalLM",
        note="only under the name PhiMoEForCausalLM, with attention biases",
    ),
)  # fmt: skip


def build(architecture, folder, demo):
    """Write the checkpoint; returns layer -> router parameters by role, as built.

    ``demo``: folder of a demo model, for its tokenizer.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    demo_config = json.loads((demo / "config.json").read_text())
    options = {**COMMON, "vocab_size": demo_config["vocab_size"], **architecture.config}
    torch.manual_seed(0)
    config = AutoConfig.for_model(architecture.model_type, **options)
    model = AutoModelForCausalLM.from_config(config)
    state = model.state_dict()
    routers = {}
    for layer in range(options["num_hidden_layers"]):
        parameters = {
            role: state[name]
            for role, path in architecture.router.items()
            if (name := f"model.layers.{layer}.{path}") in state
        }
        for role, parameter in parameters.items():
            mean = 1.0 if role.endswith("_scale") else 0.0
            std = 0.0 if role in architecture.zero else 0.2
            torch.nn.init.normal_(parameter, mean=mean, std=std)
        if parameters:
            routers[layer] = parameters
    model.save_pretrained(folder)
    for path in Path(demo).glob("*token*"):
        (Path(folder) / path.name).write_bytes(path.read_bytes())
    if architecture.model_class:
        path = Path(folder) / "config.json"
        config = {**json.loads(path.read_text()), "architectures": [architecture.model_class]}
        path.write_text(json.dumps(config, indent=1))
    return routers
