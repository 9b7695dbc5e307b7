"""Write a planted model to a folder, whole or not at all."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from tracer.demo.configs import generation_config, model_config, model_shape
from tracer.demo.constants import NUM_EXPERTS, TOP_K
from tracer.demo.design import design_layers
from tracer.demo.embeddings import draw_directions, embed_tokens, output_head, router_weight
from tracer.demo.prompts import bundled_prompts, read_vocabulary
from tracer.demo.tokens import make_token_table, tokenizer_files
from tracer.demo.truth import PlantedTruth, layer_truth
from tracer.demo.weights import make_tensors
from tracer.errors import EngineMissingError, InputError

__all__ = ["write_demo_model"]

_TRUTH = "planted.json"
_FILES = frozenset(
    {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer_config.json",
        _TRUTH,
    }
)


def write_demo_model(
    directory: Path, *, architecture: str = "olmoe", seed: int = 0
) -> PlantedTruth:
    """Write a Hugging Face checkpoint with planted routing, and its truth beside it.

    The same arguments give the same bytes. An earlier demo model in ``directory`` is
    replaced; the folder is complete when it appears.

    Args:
        directory: where to write; created with its parents.
        architecture: 'olmoe', 'qwen3_moe' or 'deepseek_v2'.
        seed: chooses weights, committee sizes by layer, and expert ids; not negative.

    Returns:
        The content of ``planted.json``.

    Raises:
        InputError: ``directory`` holds something else, or an argument is unknown.
        EngineMissingError: the libraries of the engine extra are not installed.
    """
    directory = directory.resolve()
    if seed < 0:
        raise InputError(f"the seed {seed} is negative", "give a whole number from 0 on.")
    _refuse_foreign(directory)
    truth, files = _build(architecture, seed)
    _replace_folder(directory, files)
    return truth


def _build(architecture: str, seed: int) -> tuple[PlantedTruth, dict[str, bytes]]:
    """The truth and all files by name."""
    shape = model_shape(architecture)
    vocabulary = read_vocabulary(bundled_prompts())
    table = make_token_table(vocabulary)
    designs = dict(zip(shape.moe_layers, design_layers(seed, len(vocabulary.domains)), strict=True))
    truth = PlantedTruth(
        architecture=architecture,
        seed=seed,
        num_experts=NUM_EXPERTS,
        top_k=TOP_K,
        moe_layers=shape.moe_layers,
        domains=vocabulary.domains,
        domain_tokens={
            name: tuple(sorted(table.domain_ids(index)))
            for index, name in enumerate(vocabulary.domains)
        },
        layers={
            layer_id: layer_truth(dict(zip(vocabulary.domains, design.by_domain, strict=True)))
            for layer_id, design in designs.items()
        },
    )
    rng = np.random.default_rng(seed)
    directions = draw_directions(rng, len(vocabulary.domains))
    embeddings = embed_tokens(rng, table, directions)
    head = output_head(rng, table, embeddings, directions)
    routers = {
        layer_id: router_weight(rng, design, directions) for layer_id, design in designs.items()
    }
    tensors = make_tensors(rng, shape, embeddings, head, routers)
    contents = tokenizer_files(table) | {
        "config.json": model_config(architecture, len(table.texts)),
        "generation_config.json": generation_config(),
        _TRUTH: truth.to_json(),
    }
    files = {name: _as_bytes(content) for name, content in contents.items()}
    files["model.safetensors"] = _safetensors(tensors)
    return truth, files


def _as_bytes(content: Any) -> bytes:
    text = content if isinstance(content, str) else json.dumps(content, indent=1)
    return (text + "\n").encode()


def _safetensors(tensors: Any) -> bytes:
    try:
        from safetensors.numpy import save
    except ImportError as error:
        raise EngineMissingError("the library 'safetensors' is not installed") from error
    return bytes(save(tensors, metadata={"format": "pt"}))


def _refuse_foreign(directory: Path) -> None:
    """Let only a missing or empty folder and an earlier demo model be written to."""
    if not directory.exists():
        return
    if not directory.is_dir():
        raise InputError(f"{directory} is a file", "name a folder for the demo model.")
    found = {entry.name for entry in directory.iterdir()}
    # Any other file is somebody's work, even beside a demo model.
    if found and not (_TRUTH in found and found <= _FILES):
        raise InputError(
            f"{directory} is not empty and holds more than a demo model",
            "name a new or empty folder.",
        )


def _replace_folder(directory: Path, files: dict[str, bytes]) -> None:
    """Write ``files`` beside ``directory`` and rename; nothing half-written is ever there."""
    fresh = directory.with_name(f".{directory.name}.{os.getpid()}.new")
    old = directory.with_name(f".{directory.name}.{os.getpid()}.old")
    try:
        fresh.mkdir(parents=True)
        for name, content in files.items():
            (fresh / name).write_bytes(content)
        if directory.exists():
            directory.rename(old)
        fresh.rename(directory)
    except OSError as error:
        if old.exists() and not directory.exists():
            old.rename(directory)
        raise InputError(
            f"cannot write {directory}: {error.strerror or error}",
            "name a folder that can be written to.",
        ) from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
