"""A small real model whose routing is known by construction, and the prompts it is made for.

Cheap to import: numpy and the tokenizer library load when a model is written.

>>> from tracer.demo import write_demo_model
>>> truth = write_demo_model(Path("demo-model"))  # doctest: +SKIP
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tracer.demo.checkpoint import write_demo_model as write_demo_model
    from tracer.demo.truth import PlantedTruth as PlantedTruth

__all__ = ["PlantedTruth", "write_demo_model"]


def __getattr__(name: str) -> Any:
    if name == "write_demo_model":
        from tracer.demo.checkpoint import write_demo_model

        return write_demo_model
    if name == "PlantedTruth":
        from tracer.demo.truth import PlantedTruth

        return PlantedTruth
    message = f"module 'tracer.demo' has no attribute {name!r}"
    raise AttributeError(message)
