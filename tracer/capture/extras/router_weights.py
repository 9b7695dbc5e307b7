"""``--router-weights``: each layer's router matrix and biases, once per run.

Engines repack weights for their kernels, so the parameter in memory may be in another order than
in the checkpoint. The matrix is therefore read off the layer's function: the router of a unit
vector is a column of it. In the model's own precision that is exact, one product and zeros.
"""

from collections.abc import Mapping
from typing import Any

import torch

from tracer.errors import UnsupportedModelError
from tracer.store.shard_rows import RouterWeights

__all__ = ["find_gates", "read_router_weights"]


def find_gates(
    model: torch.nn.Module, runners: Mapping[int, Any], num_experts: int
) -> dict[int, Any]:
    """The linear layer that computes the router's logits, by decoder layer.

    Args:
        model: holds the runners.
        runners: decoder layer to vLLM ``MoERunner``.
        num_experts: routed experts of a layer.

    Raises:
        UnsupportedModelError: a layer whose router is not one linear layer beside its experts.
    """
    names = {id(module): name for name, module in model.named_modules()}
    gates = {
        layer: _gate(model, names[id(runner)], runner, num_experts)
        for layer, runner in runners.items()
    }
    for layer, gate in gates.items():
        if gate is None:
            raise UnsupportedModelError(
                f"layer {layer} has no linear router that could be read",
                "leave --router-weights off.",
            )
    return gates


def read_router_weights(
    gates: Mapping[int, Any], runners: Mapping[int, Any]
) -> dict[int, RouterWeights]:
    """Matrix and biases by decoder layer, of what ``find_gates`` found."""
    return {layer: _read(gate, runners[layer].router) for layer, gate in gates.items()}


def _gate(model: torch.nn.Module, name: str, runner: Any, num_experts: int) -> Any:
    """The linear layer with one output per expert, in the runner or beside it."""
    if (inside := getattr(runner, "gate", None)) is not None:
        return inside
    parent = model.get_submodule(name.rpartition(".")[0])
    found = [
        module
        for path, module in parent.named_modules()
        if getattr(module, "output_size", None) == num_experts and "experts" not in path
    ]
    return found[0] if len(found) == 1 else None


def _read(gate: Any, router: Any) -> RouterWeights:
    parameter = next(gate.parameters())
    unit = torch.eye(gate.input_size, dtype=parameter.dtype, device=parameter.device)
    with torch.no_grad():
        matrix = gate.quant_method.apply(gate, unit, None)
    return RouterWeights(
        _host(matrix.T),
        _host(getattr(gate, "bias", None)),
        _host(getattr(router, "e_score_correction_bias", None)),
    )


def _host(tensor: torch.Tensor | None) -> Any:
    return None if tensor is None else tensor.detach().float().cpu().contiguous().numpy()
