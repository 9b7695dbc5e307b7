"""Reads routing that a logger wrote as JSON lines, one token and layer per line.

`{"req_id": …, "token_idx": 0, "layer": 3, "topk_ids": [5, 1], "topk_weights": [0.6, 0.4]}`
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from tracer.errors import DamagedDataError, InputError
from tracer.store.import_limits import Unpacked
from tracer.store.interchange_files import routing_columns

__all__ = ["MOST_LINE_BYTES", "read_jsonl"]

_LINES_TOGETHER = 50_000  # as Python objects
_LINE_BYTES = 32
# 32,767 ids and weights of 25 characters, the most that a run can have, and a request's name.
MOST_LINE_BYTES = 1024 * 1024
_KEYS = ("req_id", "token_idx", "layer", "topk_ids", "topk_weights")
_TOO_LARGE = 2.0**127  # the lake's weights are float32
_Row = tuple[str, int, int, list[int], list[float]]


def read_jsonl(
    path: Path,
    lines: Iterable[tuple[int, str]],
    row: Mapping[str, Any],
    limit: Unpacked | None = None,
) -> pa.Table:
    """The rows of routing, without token ids; empty lines are passed over.

    Args:
        path: of the file, for messages.
        lines: (number, text) of its lines.
        row: of `runs`.
        limit: of what the rows come to; empty lines count too, so that no packed file of them
            keeps the reader busy for hours.

    Raises:
        InputError: a line that is not an object with the five keys, or more than the limit.
        DamagedDataError: values that no choice of the run can have.
    """
    parts = [routing_columns().empty_table()]
    rows: list[_Row] = []
    limit = limit or Unpacked()
    for number, text in lines:
        limit.take(path, _LINE_BYTES)
        if not text.strip():
            continue
        rows.append(_row(f"{path}, line {number}", text, row))
        if len(rows) == _LINES_TOGETHER:
            parts.append(_table(rows))
            limit.take(path, parts[-1].nbytes)
            rows = []
    return pa.concat_tables([*parts, _table(rows)] if rows else parts)


def _row(place: str, text: str, run: Mapping[str, Any]) -> _Row:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{place}: not JSON: {type(error).__name__}") from error
    if not isinstance(found, dict):
        raise InputError(f"{place}: not a JSON object")
    if missing := [key for key in _KEYS if key not in found]:
        raise InputError(f"{place}: lacks {', '.join(missing)}", f"it needs {', '.join(_KEYS)}.")
    typed = _typed(place, found)
    _, token, layer, ids, weights = typed
    if not 0 <= token < 2**31 or layer not in run["moe_layers"]:
        raise DamagedDataError(f"{place}: token {token} of layer {layer} cannot be in this run")
    if len(ids) != run["top_k"] or len(weights) != run["top_k"]:
        raise DamagedDataError(
            f"{place}: {len(ids)} ids and {len(weights)} weights where top_k is {run['top_k']}"
        )
    if any(not 0 <= one < run["num_experts"] for one in ids):
        raise DamagedDataError(f"{place}: expert ids beyond 0 to {run['num_experts'] - 1}")
    if any(not abs(one) < _TOO_LARGE for one in weights):
        raise DamagedDataError(f"{place}: a gate weight that is not a finite number")
    return typed


def _typed(place: str, found: Mapping[str, Any]) -> _Row:
    request, token, layer, ids, weights = (found[key] for key in _KEYS)
    if type(request) is int:
        request = str(request)
    if not isinstance(request, str):
        raise InputError(f"{place}: req_id is not a text or a whole number")
    if type(token) is not int or type(layer) is not int:
        raise InputError(f"{place}: token_idx and layer must be whole numbers")
    if not isinstance(ids, list) or any(type(one) is not int for one in ids):
        raise InputError(f"{place}: topk_ids is not a list of whole numbers")
    if not isinstance(weights, list) or any(type(one) not in (int, float) for one in weights):
        raise InputError(f"{place}: topk_weights is not a list of numbers")
    return request, token, layer, ids, weights


def _table(rows: list[_Row]) -> pa.Table:
    schema = routing_columns()
    try:
        columns = [
            pa.array(values, field.type)
            for values, field in zip(zip(*rows, strict=True), schema, strict=True)
        ]
    except (pa.ArrowException, UnicodeEncodeError) as error:  # half a surrogate pair in a req_id
        raise InputError(f"a req_id is not text: {error}") from error
    return pa.table(columns, schema=schema)
