"""Writes a run in the interchange form, as `tracer import` reads it; also what forms share."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tracer.errors import InputError
from tracer.schema import table_schema
from tracer.store.run_rows import RoutingPart, RunRows

__all__ = ["FILES", "write_interchange", "write_requests_file", "write_run_file"]

FILES = ("routing.parquet", "requests.parquet", "run.json")

_SCHEMA = pa.schema(
    [
        ("request_id", pa.string()),
        ("position", pa.int32()),
        ("token_id", pa.int32()),
        ("layer_id", pa.int16()),
        ("expert_ids", pa.list_(pa.int16())),
        ("gate_weights", pa.list_(pa.float32())),
    ]
)
_CORE = ("request_id", "domain", "num_prompt_tokens", "token_ids")
# Facts of this lake and not of the run; an import has its own.
_OF_THE_LAKE = {
    "status",
    "started_at",
    "finished_at",
    "tracer_version",
    "dataset_digest",
    "options",
}
_NO_LABELS: dict[str, str] = {}


def write_interchange(path: Path, rows: RunRows, done: Callable[[str], None]) -> int:
    """Write the file of routing; rows stand as in the lake, a row group at a time.

    Returns:
        Rows of routing.

    Raises:
        DamagedDataError: as ``RunRows.parts``.
        OSError: a file cannot be written.
    """
    names = pa.array([row["request_id"] for row in rows.requests], pa.string())
    num_rows = 0
    with pq.ParquetWriter(path, _SCHEMA, compression="zstd") as writer:
        for part in rows.parts(done):
            writer.write_table(_table(part, rows, names))
            num_rows += len(part.positions)
    return num_rows


def _table(part: RoutingPart, rows: RunRows, names: pa.StringArray) -> pa.Table:
    count, top_k = part.expert_ids.shape
    offsets = pa.array(np.arange(count + 1, dtype=np.int32) * top_k)
    columns = [
        names.take(pa.array(part.requests)),
        pa.array(part.positions),
        pa.array(rows.token_ids[rows.starts[part.requests] + part.positions]),
        pa.array(part.layers),
        pa.ListArray.from_arrays(offsets, pa.array(part.expert_ids.ravel())),
        pa.ListArray.from_arrays(offsets, pa.array(part.gate_weights.ravel())),
    ]
    typed = [column.cast(field.type) for column, field in zip(columns, _SCHEMA, strict=True)]
    return pa.table(typed, schema=_SCHEMA)


def write_requests_file(path: Path, rows: RunRows) -> None:
    """Write a row per request: its domain, prompt length, token ids, and a column per label.

    Raises:
        InputError: a label that is named as one of the other columns.
    """
    labels = [dict(row["labels"] or _NO_LABELS) for row in rows.requests]
    names = sorted({name for label in labels for name in label})
    if taken := [name for name in names if name in _CORE]:
        raise InputError(f"the label {taken[0]!r} has the name of a column of requests")
    offsets = pa.array(np.append(rows.starts, rows.lengths.sum()), pa.int64())
    types = {"request_id": pa.string(), "domain": pa.string(), "num_prompt_tokens": pa.int32()}
    columns = {n: pa.array([row[n] for row in rows.requests], t) for n, t in types.items()}
    columns["token_ids"] = pa.LargeListArray.from_arrays(offsets, pa.array(rows.token_ids))
    columns |= {name: pa.array([one.get(name) for one in labels], pa.string()) for name in names}
    pq.write_table(pa.table(columns), path, compression="zstd")


def write_run_file(path: Path, rows: RunRows) -> None:
    """Write what is known of the run: columns of `runs`, and the keys of its options."""
    columns = {column.name for column in table_schema("runs").columns}
    facts: dict[str, Any] = {
        key: value
        for key, value in rows.run.items()
        if key in columns - _OF_THE_LAKE and value is not None
    }
    options = json.loads(rows.run["options"] or "{}")
    facts |= {key: value for key, value in options.items() if key not in columns}
    path.write_text(json.dumps(facts, indent=2, sort_keys=True) + "\n", encoding="utf-8")
