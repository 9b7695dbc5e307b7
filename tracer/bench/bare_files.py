"""What a shard's cost is held against: `routing` alone, by our encoder and by pyarrow's writer."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from tracer.schema import arrow_schema
from tracer.store.column_chunks import Runs
from tracer.store.layer_file import Layer, Plain, write_layers
from tracer.store.parquet_files import ShardFile, write_file
from tracer.store.shard_rows import ShardRows
from tracer.store.storage import Storage

__all__ = ["arrow_layers", "write_routing", "write_with_pyarrow"]

_RUN = "bench"
_PHASES = ("prompt", "generated")
_MAX_DICTIONARY = 1 << 28  # see tracer.store.parquet_files


def write_routing(storage: Storage, rows: ShardRows, num_experts: int) -> ShardFile:
    """Check, sort, encode and sync `routing` as a shard does, of weights recorded as bfloat16.

    Nothing is summed, and no other table written.
    """
    counts = rows.row_counts
    prompts = [request.num_prompt_tokens for request in rows.requests]
    inside = np.minimum(prompts, counts)  # positions begin at 0 and have no gaps
    phases = np.column_stack([inside, counts - inside]).ravel()
    names = [request.request_id for request in rows.requests]
    shared: dict[str, Plain] = {
        "run_id": Runs([_RUN], np.zeros(1, dtype=np.int64), np.array([len(rows.positions)])),
        "request_id": Runs(names, np.arange(len(counts)), counts),
        "phase": Runs(_PHASES, np.tile([0, 1], len(counts)), phases),
        "position": (rows.positions, "DELTA_BINARY_PACKED"),
    }

    def layers() -> Iterator[Layer]:
        choices = rows.choices(num_experts)
        for layer_id, (ids, weights) in zip(rows.layer_ids, choices, strict=True):
            yield Layer(layer_id, ids.shape[1], [ids, weights])

    def fill(file: BinaryIO) -> int:
        return write_layers(
            file,
            arrow_schema("routing"),
            rows=len(rows.positions),
            shared=shared,
            layers=layers(),
            num_experts=num_experts,
        )

    rows.check_frame(num_experts)
    return write_file(storage, "routing", _RUN, "rows", fill)


def arrow_layers(rows: ShardRows, num_experts: int) -> list[pa.Table]:
    """A table for each layer as pyarrow writes it fastest: sorted already, texts as dictionaries.

    Making them is no part of what ``write_with_pyarrow`` costs.
    """
    counts = rows.row_counts
    prompts = np.repeat([request.num_prompt_tokens for request in rows.requests], counts)
    names = [request.request_id for request in rows.requests]
    keys = {
        "run_id": _texts(np.zeros(len(prompts)), [_RUN]),
        "request_id": _texts(np.repeat(np.arange(len(counts)), counts), names),
        "position": pa.array(np.ascontiguousarray(rows.positions)),
        "phase": _texts(rows.positions >= prompts, _PHASES),
    }
    tables = []
    for layer_id, (ids, weights) in zip(rows.layer_ids, rows.choices(num_experts), strict=True):
        offsets = pa.array(np.arange(len(ids) + 1, dtype=np.int32) * np.int32(ids.shape[1]))
        columns = {
            **keys,
            "layer_id": pa.array(np.full(len(ids), layer_id, dtype=np.int16)),
            "expert_ids": pa.ListArray.from_arrays(offsets, pa.array(ids.ravel())),
            "gate_weights": pa.ListArray.from_arrays(offsets, pa.array(weights.ravel())),
        }
        tables.append(pa.table({name: columns[name] for name in arrow_schema("routing").names}))
    return tables


def write_with_pyarrow(path: Path, layers: list[pa.Table]) -> None:
    """Encode `routing` with pyarrow's writer in the encodings that a shard has; no sync."""
    plain = {"position": "DELTA_BINARY_PACKED", "gate_weights.list.element": "BYTE_STREAM_SPLIT"}
    with pq.ParquetWriter(
        path,
        layers[0].schema,
        compression="zstd",
        compression_level=1,
        store_schema=False,
        column_encoding=plain,
        use_dictionary=["run_id", "request_id", "layer_id", "phase", "expert_ids.list.element"],
        write_statistics=["run_id", "request_id", "position", "layer_id", "phase"],
        dictionary_pagesize_limit=_MAX_DICTIONARY,
    ) as writer:
        for layer in layers:
            writer.write_table(layer, row_group_size=layer.num_rows)


def _texts(numbers: npt.NDArray[Any], texts: Sequence[str]) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(numbers.astype(np.int32)), pa.array(texts))
