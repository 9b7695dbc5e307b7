"""Finds every router of a loaded model and makes it write to the capture buffers.

With ``router_facts.py`` the only module that knows vLLM's MoE classes. Read from vLLM 0.26 to
0.33; the method that is shadowed, ``BaseRouter._compute_routing(hidden_states, router_logits,
indices_type, *, input_ids)``, has the same signature in all of them. It returns weights and
*logical* expert ids: it runs before the expert-parallel load balancer maps ids to physical
replicas.
"""

from typing import Any

import torch

from tracer.capture.buffer import RoutingBuffer, record
from tracer.capture.router_facts import AttachedModel, describe_routers
from tracer.errors import UnsupportedModelError

__all__ = ["attach", "detach"]


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
    shape = describe_routers(runners)
    buffer = RoutingBuffer.allocate(len(runners), max_tokens, shape.top_k, device)
    for index, runner in enumerate(runners.values()):
        _shadow(runner.router, buffer.expert_ids[index], buffer.gate_weights[index])
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
