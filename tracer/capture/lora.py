"""A LoRA adapter that every request of a capture runs with."""

import json
from pathlib import Path
from typing import Any

from tracer.errors import InputError, UnsupportedModelError

__all__ = ["adapter_rank", "enable_lora", "lora_request"]

_CONFIG = "adapter_config.json"


def adapter_rank(folder: Path) -> int:
    """Rank of the adapter in a folder, as its own config says.

    Raises:
        InputError: the folder holds no adapter.
    """
    path = folder / _CONFIG
    try:
        rank = json.loads(path.read_text(encoding="utf-8"))["r"]
    except OSError as error:
        raise InputError(
            f"no LoRA adapter in {folder}: {path} cannot be read",
            "give --lora the folder that PEFT's save_pretrained wrote.",
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} does not tell the adapter's rank `r`") from error
    return int(rank)


def enable_lora(arguments: Any, folder: Path | None) -> None:
    """Have the engine make room for the adapter.

    Args:
        arguments: ``vllm.engine.arg_utils.EngineArgs``; a larger --max-lora-rank is left alone.
        folder: the adapter.

    Raises:
        InputError: no folder, or one that holds no adapter.
        UnsupportedModelError: this engine has no kernel for it.
    """
    from typing import get_args

    from vllm.config.lora import MaxLoRARanks

    if folder is None:
        raise InputError("--enable-lora names no adapter", "give the adapter's folder: --lora DIR.")
    rank = adapter_rank(folder)
    refuse_without_kernel()
    arguments.enable_lora = True
    room = [size for size in sorted(get_args(MaxLoRARanks)) if size >= rank]
    if room:  # else vLLM refuses the adapter in its own words
        arguments.max_lora_rank = max(arguments.max_lora_rank, room[0])


def refuse_without_kernel() -> None:
    """Refuse adapters on a CPU, where vLLM fails in its first step (0.32, measured).

    With LoRA on it takes the Triton kernel for experts whatever the platform
    (``fused_moe/oracle/unquantized.py``).

    Raises:
        UnsupportedModelError: the engine runs on a CPU.
    """
    from vllm.platforms import current_platform

    if current_platform.is_cpu():
        raise UnsupportedModelError(
            "vLLM on a CPU has no kernel for MoE models with adapters",
            "run on a GPU, or merge the adapter into the model.",
        )


def lora_request(folder: Path) -> Any:
    """The adapter as ``vllm.lora.request.LoRARequest``."""
    from vllm.lora.request import LoRARequest

    return LoRARequest(folder.name or "adapter", 1, str(folder.absolute()))
