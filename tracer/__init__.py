"""moe-tracer: which experts every token of a Mixture-of-Experts model is routed to.

vLLM imports this package in each of its processes, so importing it loads nothing heavy:
the public functions are looked up on first use.

>>> import tracer
>>> lake = tracer.open_lake("./lake")  # doctest: +SKIP
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tracer.api import TraceLake as TraceLake
    from tracer.api import open_lake as open_lake

__version__ = "0.1.0"
__all__ = ["TraceLake", "__version__", "open_lake"]


def __getattr__(name: str) -> Any:
    if name in ("TraceLake", "open_lake"):
        from tracer import api

        return getattr(api, name)
    message = f"module 'tracer' has no attribute {name!r}"
    raise AttributeError(message)
