"""Finds every router of a loaded model and makes it write to the capture buffers.

The one module that knows vLLM's MoE classes. Read from vLLM 0.26 to 0.33; the method that is
shadowed, ``BaseRouter._compute_routing(hidden_states, router_logits, indices_type, *,
input_ids)``, has the same signature in all of them. It returns weights and *logical* expert
ids: it runs before the expert-parallel load balancer maps ids to physical replicas.
"""

from dataclasses import asdict, dataclass
from typing import Any

import torch

from tracer.capture.buffer import RoutingBuffer, record
from tracer.errors import UnsupportedModelError

__all__ = ["AttachedModel", "attach", "detach"]


@dataclass(frozen=True, slots=True)
class AttachedModel:
    """What capture found in a worker's model; all layers agree on everything but their id.

    layer_ids: decoder layers with a router in this worker, ascending
    routed_scaling_factor: factor on the routed output
    weights_scaled: the router's weights already contain that factor
    """

    layer_ids: tuple[int, ...]
    num_experts: int
    top_k: int
    scoring_function: str
    renormalised: bool | None
    routed_scaling_factor: float
    weights_scaled: bool

    def to_dict(self) -> dict[str, Any]:
        """As plain values, to cross process boundaries."""
        return {**asdict(self), "layer_ids": list(self.layer_ids)}


def _runners(model: torch.nn.Module) -> dict[int, Any]:
    """MoE runners of the model by decoder layer, ascending."""
    from vllm.model_executor.layers.fused_moe.layer import MoERunner

    runners: dict[int, Any] = {}
    for module in model.modules():
        if isinstance(module, MoERunner):
            if module.layer_id in runners:
                raise UnsupportedModelError(
                    f"two routers call themselves layer {module.layer_id}",
                    "models with several routers in one layer cannot be captured yet.",
                )
            runners[module.layer_id] = module
    return dict(sorted(runners.items()))


def _refuse_uncapturable(layer_id: int, runner: Any) -> None:
    from vllm.model_executor.layers.fused_moe.router.base_router import BaseRouter

    if runner.is_monolithic:
        kernel = type(runner.routed_experts.quant_method).__name__
        raise UnsupportedModelError(
            f"layer {layer_id} routes inside a fused kernel ({kernel}), so its choices cannot"
            " be seen",
            "choose a modular kernel, for example --moe-backend triton.",
        )
    if not isinstance(runner.router, BaseRouter):
        raise UnsupportedModelError(
            f"layer {layer_id} has an unknown router class {type(runner.router).__name__}",
            "captured are routers derived from vLLM's BaseRouter.",
        )


def _common(values: dict[int, Any], what: str) -> Any:
    different = set(values.values())
    if len(different) != 1:
        raise UnsupportedModelError(
            f"layers differ in {what}: {values}", "one shape per model can be captured."
        )
    return different.pop()


def _scoring(router: Any) -> str:
    """Scoring function by name; routers without one are softmax routers in vLLM."""
    name = getattr(router, "scoring_func", None)
    if name is None and getattr(router, "custom_routing_function", None) is not None:
        return "custom"
    return str(name or "softmax")


def _factors(runner: Any) -> tuple[float, bool]:
    """(routed_scaling_factor, whether the router multiplies its weights by it).

    vLLM applies the factor in exactly one place, the router or the output, and sets the other
    to 1.
    """
    in_router = float(getattr(runner.router, "routed_scaling_factor", 1.0) or 1.0)
    if in_router != 1.0:
        return in_router, True
    return float(getattr(runner, "routed_scaling_factor", 1.0) or 1.0), False


def attach(
    model: torch.nn.Module, max_tokens: int, device: torch.device
) -> tuple[AttachedModel, RoutingBuffer]:
    """Shadow ``_compute_routing`` on every router of the model.

    Args:
        model: the loaded model of this worker.
        max_tokens: most rows of one forward pass, padding included.
        device: where the routers run.

    Returns:
        The common shape of all layers and the buffer their choices are written to.

    Raises:
        UnsupportedModelError: no router, a fused-router kernel, or layers that differ.
    """
    runners = _runners(model)
    if not runners:
        raise UnsupportedModelError(
            f"{type(model).__name__} has no MoE router (it is a dense model, or one whose MoE"
            " layers bypass vLLM's MoERunner)",
            "give a Mixture-of-Experts model; `tracer demo-model DIR` makes a small one.",
        )
    for layer_id, runner in runners.items():
        _refuse_uncapturable(layer_id, runner)
    routers = {layer: runner.router for layer, runner in runners.items()}
    factor, scaled = _common({n: _factors(r) for n, r in runners.items()}, "scaling factor")
    shape = AttachedModel(
        layer_ids=tuple(runners),
        num_experts=_common({n: r.global_num_experts for n, r in routers.items()}, "num_experts"),
        top_k=_common({n: r.top_k for n, r in routers.items()}, "top_k"),
        scoring_function=_common({n: _scoring(r) for n, r in routers.items()}, "scoring function"),
        renormalised=_common(
            {n: getattr(r, "renormalize", None) for n, r in routers.items()}, "renormalisation"
        ),
        routed_scaling_factor=factor,
        weights_scaled=scaled,
    )
    buffer = RoutingBuffer.allocate(len(runners), max_tokens, shape.top_k, device)
    for index, router in enumerate(routers.values()):
        _shadow(router, buffer.expert_ids[index], buffer.gate_weights[index])
    return shape, buffer


def _shadow(router: Any, expert_ids: torch.Tensor, gate_weights: torch.Tensor) -> None:
    compute_routing = router._compute_routing  # noqa: SLF001

    def compute_and_record(
        hidden_states: torch.Tensor,
        router_logits: torch.Tensor,
        indices_type: torch.dtype | None,
        *,
        input_ids: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        topk_weights, topk_ids = compute_routing(
            hidden_states, router_logits, indices_type, input_ids=input_ids
        )
        record(expert_ids, gate_weights, topk_ids, topk_weights)
        return topk_weights, topk_ids

    router._compute_routing = compute_and_record  # noqa: SLF001


def detach(model: torch.nn.Module) -> None:
    """Undo ``attach``: the routers' own methods show through again."""
    for runner in _runners(model).values():
        vars(runner.router).pop("_compute_routing", None)
