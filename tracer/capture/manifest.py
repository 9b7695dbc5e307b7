"""The row of `runs`: what was asked, what the engine turned out to be, and the run's name."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tracer import __version__
from tracer.capture.engine_setup import EngineIdentity
from tracer.capture.record_options import RecordOptions
from tracer.errors import InputError
from tracer.store.lake import check_run_id

__all__ = [
    "CaptureRequest",
    "default_run_id",
    "describe_run",
    "describe_settings",
    "folder_digest",
    "parallel_layout",
    "refuse_other_settings",
]

# What a resumed capture must share with the run it continues, and how it is called to users.
_SETTINGS = {
    "model": "--model",
    "model_revision": "the model's files",
    "dataset": "--dataset",
    "dataset_digest": "the dataset's rows",
    "weight_precision": "--weight-precision",
    "max_tokens": "--max-tokens",
    "dtype": "--dtype",
    "options": "sampling, prompt, recording or engine options",
}


_HASHED_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class CaptureRequest:
    """What a user asks of one capture; see `tracer capture --help` for the meaning of each.

    max_tokens: generated tokens per request; engine_options: words passed on to vLLM
    chat_template: None lets the dataset decide
    samples: requests per dataset row; stop: texts that end an output
    lora: folder of an adapter that every request runs with
    """

    model: str
    run_id: str | None = None
    max_tokens: int = 16
    weight_precision: str = "bf16"
    too_long: str = "error"
    chat_template: bool | None = None
    temperature: float = 0.0
    ignore_eos: bool = False
    store_text: bool = False
    engine_options: Sequence[str] = ()
    allow_untested_engine: bool = False
    samples: int = 1
    stop: Sequence[str] = ()
    top_m: int = 0
    router_logits: bool = False
    router_weights: bool = False
    lora: Path | None = None
    allow_unproved_layout: bool = False

    @property
    def record(self) -> RecordOptions:
        """What the workers record."""
        return RecordOptions(
            self.weight_precision, self.top_m, self.router_logits, self.router_weights
        )

    def check(self) -> None:
        """See that the settings make sense together.

        Raises:
            InputError: they do not.
        """
        if self.samples > 1 and self.temperature == 0:
            raise InputError(
                f"{self.samples} samples of each row at temperature 0 are {self.samples} times the"
                " same output",
                "give a --temperature above 0, or leave --samples at 1.",
            )
        if "" in self.stop:
            raise InputError("an empty text stops nothing", "give --stop at least one character.")

    def to_options(self) -> str:
        """The settings without a column of their own, as canonical JSON.

        The later ones stand there only where they were used, so that runs keep their names.
        """
        later = {
            "samples": self.samples if self.samples > 1 else 0,
            "stop": list(self.stop),
            "top_m": self.top_m,
            "router_logits": self.router_logits,
            "router_weights": self.router_weights,
            "lora": {"folder": str(self.lora), "digest": folder_digest(self.lora)}
            if self.lora is not None
            else None,
            "allow_unproved_layout": self.allow_unproved_layout,
        }
        return json.dumps(
            {
                "chat_template": self.chat_template,
                "engine_options": list(self.engine_options),
                "ignore_eos": self.ignore_eos,
                "store_text": self.store_text,
                "temperature": self.temperature,
                "too_long": self.too_long,
                **{name: value for name, value in later.items() if value},
            },
            sort_keys=True,
        )


def describe_settings(
    request: CaptureRequest,
    dataset: str,
    dataset_digest: str,
    identity: EngineIdentity,
    config: Any,
) -> dict[str, Any]:
    """The part of a run's row that is known before the model is loaded, its name included.

    Args:
        request: what was asked.
        dataset: its name as given.
        dataset_digest: over the rows taken.
        identity: the engine.
        config: ``vllm.config.VllmConfig``.
    """
    model_config = config.model_config
    row: dict[str, Any] = {
        "engine": identity.distribution,
        "engine_version": identity.version,
        "model": request.model,
        "model_revision": _revision(request.model, model_config),
        "dtype": str(model_config.dtype).removeprefix("torch."),
        "dataset": dataset,
        "dataset_digest": dataset_digest,
        "weight_precision": request.weight_precision,
        "max_tokens": request.max_tokens,
        "options": request.to_options(),
    }
    row["run_id"] = check_run_id(request.run_id or default_run_id(row))
    return row


# What else the weights mean, under the names that the workers and `runs` share.
_MODEL_FACTS = ("selection_bias", "num_expert_groups", "num_chosen_groups", "weights_on_input")


def describe_run(
    settings: Mapping[str, Any], config: Any, model: Mapping[str, Any]
) -> dict[str, Any]:
    """The row of `runs`, without its status and times.

    Args:
        settings: from ``describe_settings``.
        config: ``vllm.config.VllmConfig``.
        model: what the workers attached (``AttachedModel.to_dict``).
    """
    model_config = config.model_config
    return {
        **settings,
        "architecture": model_config.architectures[0],
        "engine_runner": model["runner"],
        "num_experts": model["num_experts"],
        "top_k": model["top_k"],
        "moe_layers": model["layer_ids"],
        "num_shared_experts": _num_shared_experts(model_config.hf_text_config),
        "scoring_function": model["scoring_function"],
        "renormalised": model["renormalised"],
        "routed_scaling_factor": model["routed_scaling_factor"],
        "weight_convention": "scaled" if model["weights_scaled"] else "unscaled",
        **{name: model[name] for name in _MODEL_FACTS},
        "prefix_caching": bool(config.cache_config.enable_prefix_caching),
        "parallel_layout": parallel_layout(config.parallel_config),
        "tracer_version": __version__,
    }


def parallel_layout(parallel: Any) -> str:
    """Sizes of the parallel groups above 1, such as tp2-pp2; that of tensor parallelism always.

    Args:
        parallel: ``vllm.config.ParallelConfig``.
    """
    parts = [f"tp{parallel.tensor_parallel_size}"]
    for short, name in (
        ("pp", "pipeline"),
        ("dp", "data"),
        ("pcp", "prefill_context"),
        ("dcp", "decode_context"),
    ):
        if (size := getattr(parallel, f"{name}_parallel_size", 1)) > 1:
            parts.append(f"{short}{size}")
    parts += ["ep"] * parallel.enable_expert_parallel
    return "-".join(parts)


def default_run_id(row: Mapping[str, Any]) -> str:
    """A name from the settings, so that the same command resumes its own run."""
    digest = hashlib.sha256(repr([row[name] for name in _SETTINGS]).encode()).hexdigest()
    parts = [Path(row["model"]).name, Path(row["dataset"]).name.split(".")[0], digest[:8]]
    name = "-".join(part for part in parts if part)
    return "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "_" for c in name)[-120:]


def refuse_other_settings(stored: Mapping[str, Any], row: Mapping[str, Any]) -> None:
    """A run continues only as it began; a complete one may be met by a newer engine.

    Raises:
        InputError: the stored run was started with other settings.
    """
    settings = dict(_SETTINGS)
    if stored["status"] != "complete":
        settings |= {"engine": "the engine", "engine_version": "the engine's version"}
    different = [flag for name, flag in settings.items() if stored[name] != row[name]]
    if different:
        raise InputError(
            f"run {row['run_id']!r} was started with other settings: {', '.join(different)}",
            "repeat the command it was started with, or choose another --run-id.",
        )


def _revision(model: str, model_config: Any) -> str | None:
    """Hub revision, or for a folder a digest of its files."""
    folder = Path(model)
    if not folder.is_dir():
        commit = getattr(model_config.hf_config, "_commit_hash", None)
        return str(commit or model_config.revision or "") or None
    return folder_digest(folder)


def folder_digest(folder: Path) -> str:
    """Digest of a folder's JSON and weight files: all of a small one, both ends of others.

    Hashing gigabytes of weights would delay each start; two trainings of one model differ in the
    first megabyte already.
    """
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.suffix in (".json", ".safetensors", ".bin"):
            size = path.stat().st_size
            digest.update(f"{path.name}:{size}\n".encode())
            with path.open("rb") as file:
                digest.update(file.read(_HASHED_BYTES))
                file.seek(max(size - _HASHED_BYTES, 0))
                digest.update(file.read())
    return f"sha256:{digest.hexdigest()[:16]}"


def _num_shared_experts(hf_config: Any) -> int:
    for name in ("n_shared_experts", "num_shared_experts", "moe_num_shared_experts"):
        if (value := getattr(hf_config, name, None)) is not None:
            return int(value)
    # Others name the width of their one shared expert, or always have one.
    widths = ("shared_expert_intermediate_size", "shared_intermediate_size")
    always = ("hunyuan_v1_moe", "llama4_text")
    return int(any(getattr(hf_config, n, 0) for n in widths) or hf_config.model_type in always)
