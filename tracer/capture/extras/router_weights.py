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

__all__ = ["read_router_weights"]


def read_router_weights(
    model: torch.nn.Module, runners: Mapping[int, Any]
) -> dict[int, RouterWeights]:
    """Of every layer in ``runners`` (decoder layer to vLLM ``MoERunner``).

    Args:
        model: holds the runners.
        runners: as above.

    Raises:
        UnsupportedModelError: a layer whose router is not one linear layer beside its experts.
    """
    names = {id(module): name for name, module in model.named_modules()}
    weights = {}
    for layer, runner in runners.items():
        gate = _gate(model, names[id(runner)], runner, runner.router.global_num_experts)
        if gate is None:
            raise UnsupportedModelError(
                f"layer {layer} has no linear router that could be read",
                "leave --router-weights off.",
            )
        weights[layer] = _read(gate, runner.router)
    return weights


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
