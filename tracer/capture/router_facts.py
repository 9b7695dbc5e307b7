"""What a captured gate weight means, read from the routers of a loaded model.

The facts are those a reader of the lake needs to compare weights with the model's definition:
which scores were compared, whether a bias or groups of experts took part in the choice, whether
the chosen scores were divided by their sum, and whether the model's scaling factor is in the
weight or applied to the routed output. Read from vLLM 0.26 to 0.33;
tests/engine/test_engine_architectures.py holds them against the captured weights.
"""

import functools
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from tracer.errors import UnsupportedModelError

__all__ = ["AttachedModel", "describe_routers"]


@dataclass(frozen=True, slots=True)
class AttachedModel:
    """What capture found in a worker's model; all layers agree on everything but their id.

    layer_ids: decoder layers with a router in this worker, ascending
    num_experts: routed experts as the model counts them, without redundant copies
    scoring_function: 'softmax', 'sigmoid', 'sqrtsoftplus'; 'sparsemixer' (Phi-MoE: each choice
        has a softmax of its own); 'softmax_expert_scale' (Gemma 4: renormalised softmax times a
        learned scale of the expert); 'custom' where vLLM does not say
    renormalised: the chosen scores were divided by their sum; None with 'custom'
    routed_scaling_factor: factor on the routed output
    weights_scaled: the router's weights already contain that factor
    selection_bias: a learned bias takes part in the choice but not in the weight
    num_expert_groups, num_chosen_groups: experts are chosen within the best groups; 1 and 1
        without groups
    weights_on_input: experts get their input times the weight, not their output
    sees_logits: the router is handed logits; False where the model has routed before
    plain_scores: scores are the scoring function of the logits plus the selection bias, and
        nothing that a model's own routing function adds
    """

    layer_ids: tuple[int, ...]
    num_experts: int
    top_k: int
    scoring_function: str
    renormalised: bool | None
    routed_scaling_factor: float
    weights_scaled: bool
    selection_bias: bool
    num_expert_groups: int
    num_chosen_groups: int
    weights_on_input: bool
    sees_logits: bool
    plain_scores: bool

    def to_dict(self) -> dict[str, Any]:
        """As plain values, to cross process boundaries."""
        return {**asdict(self), "layer_ids": list(self.layer_ids)}


# Routing functions that models hand to vLLM: module and name -> scoring function and whether
# weights are renormalised (None: as the router was told).
_FUNCTIONS: dict[tuple[str, str], tuple[str, bool | None]] = {
    ("cohere2_moe", "token_choice_with_bias"): ("sigmoid", None),
    ("gemma4", "Gemma4Router.routing_function"): ("softmax_expert_scale", False),
    ("llama4", "Llama4MoE.custom_routing_function"): ("sigmoid", False),
    ("phimoe", "phimoe_routing_function"): ("sparsemixer", False),
}
# Models whose own Transformers code routes; vLLM's runner is handed the finished weights.
_ROUTED_BY_TRANSFORMERS: dict[str, tuple[str, bool | None]] = {
    "HunYuanMoEV1Model": ("softmax", True),
}
_CUSTOM = ("custom", None)


def describe_routers(runners: Mapping[int, Any], model: Any = None) -> AttachedModel:
    """The facts that all layers share.

    Args:
        runners: decoder layer to vLLM ``MoERunner``, ascending; at least one.
        model: the model they belong to; tells how weights come about that vLLM's runner is
            only handed.

    Raises:
        UnsupportedModelError: layers that differ, or an engine that leaves out a part of the
            model's routing.
    """
    for layer_id, runner in runners.items():
        _refuse_ignored(layer_id, runner.router)

    def common(fact: Any, what: str) -> Any:
        return _common({layer: fact(runner) for layer, runner in runners.items()}, what)

    scoring, renormalised = common(lambda r: _scoring(r.router, model), "scoring function")
    factor, scaled = common(_factors, "scaling factor")
    groups, chosen_groups = common(lambda r: _groups(r.router), "expert groups")
    return AttachedModel(
        layer_ids=tuple(runners),
        num_experts=common(_num_experts, "num_experts"),
        top_k=common(lambda r: r.router.top_k, "top_k"),
        scoring_function=scoring,
        renormalised=renormalised,
        routed_scaling_factor=factor,
        weights_scaled=scaled,
        selection_bias=any(_bias(r.router) is not None for r in runners.values()),
        num_expert_groups=groups,
        num_chosen_groups=chosen_groups,
        weights_on_input=common(
            lambda r: bool(getattr(r.routed_experts, "apply_router_weight_on_input", False)),
            "place of the weights",
        ),
        sees_logits=not any(_routed_before(r.router) for r in runners.values()),
        plain_scores=all(_function(r.router) is None for r in runners.values()),
    )


def _common(values: Mapping[int, Any], what: str) -> Any:
    different = set(values.values())
    if len(different) != 1:
        raise UnsupportedModelError(
            f"layers differ in {what}: {dict(values)}", "one shape per model can be captured."
        )
    return different.pop()


def _num_experts(runner: Any) -> int:
    """Without the copies that expert load balancing adds; captured ids are of this range."""
    logical = getattr(runner.moe_config, "num_logical_experts", None)
    return int(logical or runner.router.global_num_experts)


def _is_cpu(router: Any) -> bool:
    return type(router).__name__ == "CPURouter"


def _function(router: Any) -> Any:
    """The routing function that a model handed to vLLM, or None."""
    function = getattr(router, "custom_routing_function", None)
    while isinstance(function, functools.partial):
        function = function.func
    return function


def _routed_before(router: Any) -> bool:
    """Whether Transformers' code routes and vLLM's router only passes the result on."""
    return ".transformers." in str(getattr(_function(router), "__module__", ""))


def _scoring(router: Any, model: Any) -> tuple[str, bool | None]:
    """(scoring function, renormalised); routers without a named function are softmax routers."""
    renormalised = getattr(router, "renormalize", None)
    function = _function(router)
    if function is None:
        return str(getattr(router, "scoring_func", None) or "softmax"), renormalised
    if _routed_before(router):
        inner = type(getattr(model, "model", None)).__name__
        return _ROUTED_BY_TRANSFORMERS.get(inner, _CUSTOM)
    module = str(getattr(function, "__module__", ""))
    key = (module.rpartition(".")[2], getattr(function, "__qualname__", ""))
    scoring, own = _FUNCTIONS.get(key, _CUSTOM)
    return scoring, renormalised if own is None and scoring != "custom" else own


def _factors(runner: Any) -> tuple[float, bool]:
    """(routed_scaling_factor, whether the router multiplies its weights by it).

    vLLM applies the factor in exactly one place, the router or the output, and sets the other
    to 1. A model's own routing function leaves the router's factor alone.
    """
    in_router = float(getattr(runner.router, "routed_scaling_factor", 1.0) or 1.0)
    if in_router != 1.0 and _function(runner.router) is None:
        return in_router, True
    return float(getattr(runner, "routed_scaling_factor", 1.0) or 1.0), False


def _bias(router: Any) -> Any:
    """Bias that steers the choice alone; its values, or None."""
    if _function(router) is not None:
        return None
    return getattr(router, "e_score_correction_bias", None)


def _is_grouped(router: Any) -> bool:
    """Whether this router chooses groups; vLLM's CPU router carries group sizes it may not use."""
    count = getattr(router, "num_expert_group", None)
    return count is not None and bool(getattr(router, "use_grouped_topk", True))


def _groups(router: Any) -> tuple[int, int]:
    if not _is_grouped(router):
        return 1, 1
    return int(router.num_expert_group), int(router.topk_group or 1)


def _refuse_ignored(layer_id: int, router: Any) -> None:
    """Refuse models whose routing vLLM's CPU router computes in part only.

    Without groups its softmax path (vLLM 0.30 to 0.32, ``CPURouter._compute_routing``) reads
    neither the selection bias nor the factor, so routing differs from the model's definition.
    """
    if not _is_cpu(router) or _function(router) is not None:
        return
    if _is_grouped(router) or router.scoring_func != "softmax":
        return
    bias = _bias(router)
    if (bias is not None and bool(bias.any())) or router.routed_scaling_factor != 1.0:
        what = "scaling factor" if bias is None else "selection bias"
        raise UnsupportedModelError(
            f"layer {layer_id}: vLLM on a CPU ignores the router's {what}, so it does not route"
            " as the model does",
            "capture this model with vLLM on a GPU.",
        )
