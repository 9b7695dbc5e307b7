"""Reads routing as FLAME-MoE publishes it: a folder with `layer_NN.parquet` for every MoE layer.

Row i of each file is token i of one stream: `indices` list of expert ids, `scores` list of gate
weights. Requests lie in it one after another, each with its `num_prompt_tokens` tokens.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from tracer.errors import DamagedDataError, InputError
from tracer.store.import_limits import Unpacked
from tracer.store.interchange_files import routing_columns
from tracer.store.limited_parquet import read_columns

__all__ = ["flame_files", "read_flame"]

_TOKEN_BYTES = 24
_NAME = re.compile(r"layer_(\d{1,5})\.parquet")


def flame_files(folder: Path) -> dict[int, Path]:
    """The files by layer, ascending.

    Raises:
        InputError: not a folder, no such file in it, or two of one layer.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder", "it holds layer_02.parquet and so on.")
    files: dict[int, Path] = {}
    for path in sorted(folder.iterdir()):
        if found := _NAME.fullmatch(path.name):
            if int(found[1]) in files:
                raise InputError(f"{folder} has two files of layer {int(found[1])}")
            files[int(found[1])] = path
    if not files:
        raise InputError(f"{folder} has no file named like layer_02.parquet")
    return dict(sorted(files.items()))


def read_flame(
    folder: Path,
    row: Mapping[str, Any],
    described: Mapping[str, Mapping[str, Any]],
    limit: Unpacked | None = None,
) -> pa.Table:
    """The rows of routing, without token ids.

    Args:
        folder: with the files.
        row: of `runs`.
        described: the requests in the order of their tokens.
        limit: of what all files unpack to.

    Raises:
        InputError: a file that cannot be read, or lacks a column.
        DamagedDataError: other layers than `moe_layers`, or not the tokens of the requests.
    """
    files = flame_files(folder)
    if list(files) != row["moe_layers"]:
        raise DamagedDataError(
            f"{folder} has the layers {list(files)}, moe_layers are {row['moe_layers']}"
        )
    counts = np.array([one["num_prompt_tokens"] for one in described.values()], dtype=np.int64)
    if (counts < 0).any():
        raise DamagedDataError("requests has a negative num_prompt_tokens")
    limit = limit or Unpacked()
    # Before arrays of that length are made: the numbers are whatever the file says. Per layer, a
    # token's request (a number and its text), position and layer.
    texts = sum(len(name.encode()) * int(n) for name, n in zip(described, counts, strict=True))
    limit.take(folder, len(files) * (texts + _TOKEN_BYTES * int(counts.sum())))
    starts = np.repeat(np.cumsum(counts) - counts, counts)
    positions = pa.array((np.arange(len(starts)) - starts).astype(np.int32))
    numbers = pa.array(np.repeat(np.arange(len(counts)), counts))
    names = pa.array(list(described), pa.string()).take(numbers)
    parts = []
    for layer, path in files.items():
        table = read_columns(
            path, {"indices": pa.list_(pa.int16()), "scores": pa.list_(pa.float32())}, limit
        )
        if table.num_rows != len(starts):
            raise DamagedDataError(
                f"{path} has {table.num_rows:,} tokens, requests has {len(starts):,}"
            )
        columns = [names, positions, pa.array(np.full(len(starts), layer, dtype=np.int16))]
        parts.append(
            pa.table(
                [*columns, *(table[name].combine_chunks() for name in ("indices", "scores"))],
                schema=routing_columns(),
            )
        )
    return pa.concat_tables(parts)
