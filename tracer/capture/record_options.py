"""What is recorded per token besides the chosen experts and their weights.

Known before the model is loaded, because the buffers that compiled code writes to depend on it. It
travels to the workers in vLLM's ``additional_config`` and is thereby part of the key of vLLM's
compile cache.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

__all__ = ["RECORD_FORMAT", "RecordOptions"]

# Raise it with every change of where in a record a field lies: compiled graphs contain the places.
RECORD_FORMAT = 1


@dataclass(frozen=True, slots=True)
class RecordOptions:
    """Recording options of one engine.

    weight_precision: bf16 or f32, what gate weights are stored with
    top_m: also record the M experts of the largest router scores; 0 = none
    router_logits: also record every expert's router logit
    router_weights: also store the router's weight matrix of every layer
    """

    weight_precision: str = "bf16"
    top_m: int = 0
    router_logits: bool = False
    router_weights: bool = False

    def to_dict(self) -> dict[str, Any]:
        """As plain values, to cross process boundaries and to tell compiled graphs apart."""
        return {**asdict(self), "format": RECORD_FORMAT}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "RecordOptions":
        """The options of ``to_dict``; what is missing has its default, what is unknown is left."""
        known = {field.name for field in fields(cls)}
        return cls(**{name: value for name, value in values.items() if name in known})
