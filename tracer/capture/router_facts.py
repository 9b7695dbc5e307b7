"""What a captured gate weight means, read from the routers of a loaded model.

The facts are those a reader of the lake needs to turn weights back into the model's definition:
which scores were compared, whether the chosen ones were divided by their sum, and whether the
model's scaling factor is in the weight or applied to the routed output.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from tracer.errors import UnsupportedModelError

__all__ = ["AttachedModel", "describe_routers"]


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


def describe_routers(runners: Mapping[int, Any]) -> AttachedModel:
    """The facts that all layers share.

    Args:
        runners: decoder layer to vLLM ``MoERunner``, ascending; at least one.

    Raises:
        UnsupportedModelError: layers that differ.
    """
    routers = {layer: runner.router for layer, runner in runners.items()}
    factor, scaled = _common({n: _factors(r) for n, r in runners.items()}, "scaling factor")
    return AttachedModel(
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


def _common(values: Mapping[int, Any], what: str) -> Any:
    different = set(values.values())
    if len(different) != 1:
        raise UnsupportedModelError(
            f"layers differ in {what}: {dict(values)}", "one shape per model can be captured."
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
