"""Reads the three files of the interchange form, each checked on its own."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tracer import __version__
from tracer.errors import DamagedDataError, InputError, first_line
from tracer.records import NO_DOMAIN
from tracer.schema import arrow_schema, table_schema
from tracer.store.import_limits import MOST_RUN_BYTES, Unpacked
from tracer.store.limited_parquet import cast_columns, read_columns, read_limited

__all__ = [
    "digest_files",
    "in_order",
    "read_requests",
    "read_routing",
    "read_run",
    "routing_columns",
    "rows_of_ids",
    "run_row",
]

_REQUESTS = ("request_id", "domain", "num_prompt_tokens")
_IDS_COLUMN = "token_ids"
_TYPES = {
    "request_id": pa.string(),
    "position": pa.int32(),
    "token_id": pa.int32(),
    "layer_id": pa.int16(),
    "expert_ids": pa.list_(pa.int16()),
    "gate_weights": pa.list_(pa.float32()),
}
_ROUTING = tuple(_TYPES)
_RUN = ("model", "num_experts", "top_k", "moe_layers")


def read_run(path: Path) -> dict[str, Any]:
    """The JSON of a run, its shape checked.

    Raises:
        InputError: unreadable, a key missing, or numbers that cannot be.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(MOST_RUN_BYTES + 1)
        if len(raw) > MOST_RUN_BYTES:
            raise InputError(
                f"{path} is longer than {MOST_RUN_BYTES:,} bytes",
                "it holds the model's shape and settings, no rows.",
            )
        facts = json.loads(raw.decode())
        json.dumps(facts, ensure_ascii=False).encode()  # half a surrogate pair is no text
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"cannot read {path}: {first_line(error)}") from error
    if not isinstance(facts, dict):
        raise InputError(f"{path} is not a JSON object")
    if missing := [key for key in _RUN if key not in facts]:
        raise InputError(f"{path} lacks {', '.join(missing)}", f"it needs {', '.join(_RUN)}.")
    layers = facts["moe_layers"]
    whole = isinstance(layers, list) and layers and all(type(x) is int for x in layers)
    if not whole or len(set(layers)) != len(layers) or not 0 <= min(layers) <= max(layers) < 2**15:
        raise InputError(f"{path}: moe_layers must be a list of different layer numbers")
    num_experts, top_k = facts["num_experts"], facts["top_k"]
    if not (type(num_experts) is int and type(top_k) is int and 0 < top_k <= num_experts < 2**15):
        raise InputError(f"{path}: num_experts and top_k must be whole, 0 < top_k <= num_experts")
    return facts


def run_row(facts: Mapping[str, Any], weight_precision: str) -> dict[str, Any]:
    """The row of `runs`: known keys take their column, unknown ones go to options.

    Raises:
        InputError: a known key holds what its column cannot.
    """
    columns = {column.name for column in table_schema("runs").columns}
    mine = {
        "run_id",
        "status",
        "started_at",
        "finished_at",
        "tracer_version",
        "options",
        "weight_precision",
        "dataset_digest",
    }
    row: dict[str, Any] = dict.fromkeys(columns)
    row |= {key: value for key, value in facts.items() if key in columns - mine}
    kept = {key: value for key, value in facts.items() if key not in columns - mine}
    row |= {
        "model": str(facts["model"]),
        "moe_layers": sorted(facts["moe_layers"]),
        "engine": str(facts.get("engine", "import")),
        "weight_precision": weight_precision,
        "options": json.dumps(kept, sort_keys=True),
        "tracer_version": __version__,
    }
    for field in arrow_schema("runs"):
        try:
            pa.array([row[field.name]], field.type)
        except (pa.ArrowException, OverflowError) as error:
            raise InputError(
                f"run.json: {field.name} is {row[field.name]!r}, which is not {field.type}"
            ) from error
    if row["weight_convention"] not in (None, "scaled", "unscaled"):
        raise InputError(
            f"run.json: weight_convention is {row['weight_convention']!r}",
            "it is scaled where gate weights contain routed_scaling_factor, else unscaled.",
        )
    return row


def digest_files(*paths: Path) -> str:
    """Sha256, hex, over the sha256 of each file in order."""
    sha = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            sha.update(hashlib.file_digest(file, "sha256").digest())
    return sha.hexdigest()


def routing_columns() -> pa.Schema:
    """What a reader of another form makes: the columns of routing without token ids."""
    return pa.schema([(name, _TYPES[name]) for name in _ROUTING if name != "token_id"])


def rows_of_ids(
    request_id: str, expert_ids: npt.NDArray[np.int16], layers: Sequence[int]
) -> pa.Table:
    """Rows of one request in ``routing_columns``, every gate weight 1 / top_k.

    Args:
        request_id: of the request.
        expert_ids: int16 [tokens, layers, top_k], positions from 0.
        layers: of the second axis.
    """
    tokens, num_layers, top_k = expert_ids.shape
    count = tokens * num_layers
    offsets = pa.array(np.arange(count + 1, dtype=np.int32) * top_k)
    weights = np.full(count * top_k, 1 / top_k, dtype=np.float32)
    columns = [
        pa.array([request_id], pa.string()).take(pa.array(np.zeros(count, dtype=np.int8))),
        pa.array(np.repeat(np.arange(tokens, dtype=np.int32), num_layers)),
        pa.array(np.tile(np.array(layers, dtype=np.int16), tokens)),
        pa.ListArray.from_arrays(offsets, pa.array(expert_ids.ravel())),
        pa.ListArray.from_arrays(offsets, pa.array(weights)),
    ]
    return pa.table(columns, schema=routing_columns())


def read_requests(path: Path, limit: Unpacked | None = None) -> dict[str, dict[str, Any]]:
    """request_id -> domain, num_prompt_tokens, labels, and token_ids: int32 array or None.

    Raises:
        InputError: unreadable, empty, a column missing or of another type, or beyond the limit.
        DamagedDataError: a request twice.
    """
    table = read_limited(path, _REQUESTS, limit or Unpacked(), labels=_IDS_COLUMN)
    core = cast_columns(
        path,
        table,
        {"request_id": pa.string(), "domain": pa.string(), "num_prompt_tokens": pa.int32()},
    )
    extra = [
        name
        for name in table.column_names
        if name not in _REQUESTS and not pa.types.is_nested(table[name].type)
    ]
    labels = table.select(extra).to_pylist()
    token_ids = _token_ids(path, table)
    described: dict[str, dict[str, Any]] = {}
    for entry, label, tokens in zip(core.to_pylist(), labels, token_ids, strict=True):
        if entry["request_id"] in described:
            raise DamagedDataError(f"{path}: request {entry['request_id']!r} is there twice")
        kept = {key: str(value) for key, value in label.items() if value is not None}
        described[entry["request_id"]] = {
            **entry,
            "domain": entry["domain"] or NO_DOMAIN,
            "labels": kept,
            "token_ids": tokens,
        }
    if not described:
        raise InputError(f"{path} has no rows")
    return described


def _token_ids(path: Path, table: pa.Table) -> Iterator[npt.NDArray[np.int32] | None]:
    """The column `token_ids` row by row; None in every row of a file without it."""
    if _IDS_COLUMN not in table.column_names:
        yield from [None] * table.num_rows
        return
    column = cast_columns(path, table, {_IDS_COLUMN: pa.large_list(pa.int32())})[_IDS_COLUMN]
    if pc.list_flatten(column).null_count:
        raise DamagedDataError(f"{path}: token_ids has empty entries")
    for chunk in column.chunks:
        for tokens in chunk:
            yield tokens.values.to_numpy()


def read_routing(path: Path, limit: Unpacked | None = None) -> pa.Table:
    """The routing rows of the interchange form.

    Raises:
        InputError: unreadable, a column missing, of another type or with empty values, or beyond
            the limit.
    """
    return read_columns(path, _TYPES, limit)


def in_order(path: Path, table: pa.Table, row: Mapping[str, Any]) -> pa.Table:
    """Routing rows sorted by request, position and layer, every list ``top_k`` long.

    Raises:
        DamagedDataError: a list of another length, or with empty entries.
    """
    for name in ("expert_ids", "gate_weights"):
        lengths = pc.list_value_length(table[name])
        if not pc.all(pc.equal(lengths, row["top_k"]), min_count=0).as_py():
            raise DamagedDataError(f"{path}: not every {name} has top_k = {row['top_k']} entries")
        if pc.list_flatten(table[name]).null_count:
            raise DamagedDataError(f"{path}: {name} has empty entries")
    return table.sort_by(
        [("request_id", "ascending"), ("position", "ascending"), ("layer_id", "ascending")]
    )
