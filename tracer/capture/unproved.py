"""Layouts of an engine whose rows have not been proved to be right; refused unless allowed."""

from typing import Any

from tracer.errors import UnsupportedModelError

__all__ = ["refuse_data_parallelism", "refuse_unproved_layout"]

# Attribute of vLLM's EngineArgs -> (value at which it has no effect, what it is called). Attributes
# that a version does not have are passed over.
_UNPROVED = {
    "enable_expert_parallel": (False, "expert parallelism"),
    "prefill_context_parallel_size": (1, "prefill context parallelism"),
    "decode_context_parallel_size": (1, "decode context parallelism"),
    "enable_dbo": (False, "dual batch overlap"),
    "ubatch_size": (0, "micro-batching"),
    "kv_sharing_fast_prefill": (False, "fast prefill over shared caches"),
    "kv_transfer_config": (None, "a cache that other engines fill"),
}


def refuse_data_parallelism(arguments: Any) -> None:
    """Refuse several engines, which one offline driver cannot feed: it would wait for ever.

    Args:
        arguments: ``vllm.engine.arg_utils.EngineArgs``.

    Raises:
        UnsupportedModelError: data parallelism is on.
    """
    if arguments.data_parallel_size > 1:
        raise UnsupportedModelError(
            "a capture drives one engine, and data parallelism needs several",
            "leave --data-parallel-size at 1 (tensor and pipeline parallelism work).",
        )


def refuse_unproved_layout(arguments: Any) -> None:
    """Refuse settings under which rows of a forward pass lie elsewhere, or on several workers.

    Args:
        arguments: ``vllm.engine.arg_utils.EngineArgs``.

    Raises:
        UnsupportedModelError: such a setting is on.
    """
    for name, (neutral, what) in _UNPROVED.items():
        value = getattr(arguments, name, neutral)
        if value != neutral:
            flag = f"--{name.replace('_', '-')}"
            setting = f"leave {flag} {f'at {neutral}' if neutral else 'off'}"
            raise UnsupportedModelError(
                f"{what} has not been proved for capture",
                f"{setting} (tensor and pipeline parallelism work), or pass"
                " --allow-unproved-layout.",
            )
