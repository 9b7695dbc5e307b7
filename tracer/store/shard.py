"""Writes finished requests as Parquet shards, each file whole or not at all.

A shard is four files of one name: `routing`, `tokens`, `usage` and `usage_by_domain`. They are
durable before any of them is named in a commit (see ``tracer.store.commit``).

`routing` is sorted by layer, then request and position, with one row group per layer, so that
a filter on a layer reads only its share of the file. Encodings were chosen by measuring size
and what every reader can read: dictionary ids, byte-split float32 weights, delta positions.
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tracer.schema import arrow_schema
from tracer.store.rollup import DomainUsage, request_usage
from tracer.store.traces import RequestTrace, round_to_bf16, sort_choices

__all__ = ["ShardFile", "ShardWriter", "sync_folder", "write_table"]

_ZSTD_LEVEL = 1  # level 3 saves 1 % of the size for a tenth of the speed


@dataclass(frozen=True, slots=True)
class ShardFile:
    """One durable Parquet file, not yet part of any table.

    path: relative to the table's folder; size: bytes
    """

    table: str
    path: str
    num_rows: int
    size: int
    run_id: str
    modified_ms: int

    def to_dict(self) -> dict[str, Any]:
        """As plain values, to cross process boundaries and be staged as JSON."""
        return asdict(self)


def write_table(
    lake_path: Path,
    table: str,
    run_id: str,
    name: str,
    row_groups: Iterable[pa.Table],
) -> ShardFile:
    """Write ``<lake>/<table>/<run_id>/<name>.parquet`` under a hidden name, sync it, rename it.

    Raises:
        OSError: disk full, no permission; the hidden file is removed.
    """
    folder = lake_path / table / run_id
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.parquet"
    hidden = folder / f".{name}.{os.getpid()}.tmp"
    schema = arrow_schema(table)
    num_rows = 0
    try:
        with hidden.open("wb") as file:
            with pq.ParquetWriter(file, schema, **_writer_options(table)) as writer:
                for group in row_groups:
                    if group.num_rows:
                        writer.write_table(group, row_group_size=group.num_rows)
                        num_rows += group.num_rows
            file.flush()
            os.fsync(file.fileno())
        hidden.replace(path)
    except BaseException:
        hidden.unlink(missing_ok=True)
        raise
    sync_folder(folder)
    stat = path.stat()
    return ShardFile(
        table, f"{run_id}/{name}.parquet", num_rows, stat.st_size, run_id, int(stat.st_mtime * 1e3)
    )


def sync_folder(folder: Path) -> None:
    """Make a rename durable: the name lives in the folder."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _writer_options(table: str) -> dict[str, Any]:
    """Measured encodings; other columns keep Parquet's dictionary default."""
    options: dict[str, Any] = {
        "compression": "zstd",
        "compression_level": _ZSTD_LEVEL,
        "store_schema": False,  # plain Parquet types only: readers see no Arrow dictionaries
    }
    split = {"routing": "gate_weights.list.element", "usage": "weight_sum.list.element"}
    encodings: dict[str, str] = {}
    if table in split:
        encodings[split[table]] = "BYTE_STREAM_SPLIT"
    if table in ("routing", "tokens"):
        encodings["position"] = "DELTA_BINARY_PACKED"
    if encodings:
        options["column_encoding"] = encodings
        options["use_dictionary"] = [
            leaf for leaf in _leaves(arrow_schema(table)) if leaf not in encodings
        ]
    return options


def _leaves(schema: pa.Schema) -> list[str]:
    return [
        f"{field.name}.list.element" if pa.types.is_list(field.type) else field.name
        for field in schema
    ]


@dataclass(frozen=True, slots=True)
class ShardWriter:
    """Writes shards of one run.

    precision: bf16 rounds gate weights to bfloat16 precision, f32 keeps them
    """

    lake_path: Path
    run_id: str
    num_experts: int
    precision: str

    def write(self, name: str, traces: Sequence[RequestTrace]) -> list[ShardFile]:
        """Write the four files of one shard. ``traces`` hold the same layers, one or more.

        Raises:
            DamagedDataError: a trace contradicts itself; nothing is written.
            OSError: the disk refuses; files of this shard that were finished are removed.
        """
        stored = [self._as_stored(trace) for trace in traces]
        tables = {
            "routing": self._routing(stored),
            "tokens": self._tokens(stored),
            "usage": self._usage(stored),
            "usage_by_domain": self._usage_by_domain(name, stored),
        }
        done: list[ShardFile] = []
        try:
            for table, groups in tables.items():
                done.append(write_table(self.lake_path, table, self.run_id, name, groups))
        except BaseException:
            for file in done:
                (self.lake_path / file.table / file.path).unlink(missing_ok=True)
            raise
        return done

    def _as_stored(self, trace: RequestTrace) -> RequestTrace:
        trace.check(self.num_experts)
        ids, weights = sort_choices(trace.expert_ids, trace.gate_weights)
        if self.precision == "bf16":
            weights = round_to_bf16(weights)
        return RequestTrace(
            trace.request_id,
            trace.domain,
            trace.num_prompt_tokens,
            trace.layer_ids,
            trace.token_ids,
            trace.positions,
            ids,
            weights,
        )

    def _constant(self, value: str, length: int) -> pa.Array:
        return pa.DictionaryArray.from_arrays(
            pa.array(np.zeros(length, dtype=np.int32)), pa.array([value])
        ).cast(pa.string())

    def _routing(self, traces: Sequence[RequestTrace]) -> Iterable[pa.Table]:
        lengths = np.array([len(trace.positions) for trace in traces])
        total = int(lengths.sum())
        request = _repeated([trace.request_id for trace in traces], lengths)
        position = np.concatenate([trace.positions for trace in traces])
        prompt = np.repeat([trace.num_prompt_tokens for trace in traces], lengths)
        phase = _phases(position, prompt)
        run = self._constant(self.run_id, total)
        for index, layer_id in enumerate(traces[0].layer_ids):
            ids = np.concatenate([trace.expert_ids[index] for trace in traces])
            weights = np.concatenate([trace.gate_weights[index] for trace in traces])
            columns = [
                run,
                request,
                pa.array(position),
                pa.array(np.full(total, layer_id, dtype=np.int16)),
                phase,
                _lists(ids),
                _lists(weights),
            ]
            yield pa.Table.from_arrays(columns, schema=arrow_schema("routing"))

    def _tokens(self, traces: Sequence[RequestTrace]) -> Iterable[pa.Table]:
        lengths = np.array([len(trace.token_ids) for trace in traces])
        position = np.concatenate(
            [np.arange(length, dtype=np.int32) for length in lengths.tolist()]
        )
        prompt = np.repeat([trace.num_prompt_tokens for trace in traces], lengths)
        columns = [
            self._constant(self.run_id, int(lengths.sum())),
            _repeated([trace.request_id for trace in traces], lengths),
            pa.array(position),
            pa.array(np.concatenate([trace.token_ids for trace in traces])),
            _phases(position, prompt),
        ]
        yield pa.Table.from_arrays(columns, schema=arrow_schema("tokens"))

    def _usage(self, traces: Sequence[RequestTrace]) -> Iterable[pa.Table]:
        rows = [row for trace in traces for row in request_usage(trace, self.num_experts)]
        rows.sort(key=lambda row: row.layer_id)  # stable: request and phase order stays
        offsets = np.cumsum([0, *(len(row.expert_ids) for row in rows)], dtype=np.int32)

        def lists(name: str, dtype: Any) -> pa.Array:
            parts = [getattr(row, name) for row in rows]
            values = np.concatenate(parts) if parts else np.empty(0, dtype=dtype)
            return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values.astype(dtype)))

        columns = [
            self._constant(self.run_id, len(rows)),
            pa.array([row.request_id for row in rows], pa.string()),
            pa.array([row.phase for row in rows], pa.string()),
            pa.array([row.layer_id for row in rows], pa.int16()),
            pa.array([row.num_tokens for row in rows], pa.int32()),
            lists("expert_ids", np.int16),
            lists("num_choices", np.int32),
            lists("weight_sum", np.float64),
        ]
        schema = arrow_schema("usage")
        yield pa.Table.from_arrays(
            [column.cast(field.type) for column, field in zip(columns, schema, strict=True)],
            schema=schema,
        )

    def _usage_by_domain(self, name: str, traces: Sequence[RequestTrace]) -> Iterable[pa.Table]:
        usage = DomainUsage(traces[0].layer_ids, self.num_experts)
        for trace in traces:
            usage.add(trace)
        layers = np.repeat(np.asarray(usage.layer_ids, dtype=np.int16), self.num_experts)
        experts = np.tile(np.arange(self.num_experts, dtype=np.int16), len(usage.layer_ids))
        parts = []
        for (domain, phase), cell in sorted(usage.cells.items()):
            chosen = np.flatnonzero(cell["num_choices"])
            columns = [
                self._constant(self.run_id, len(chosen)),
                self._constant(name, len(chosen)),
                self._constant(domain, len(chosen)),
                self._constant(phase, len(chosen)),
                pa.array(layers[chosen]),
                pa.array(experts[chosen]),
                pa.array(cell["num_choices"][chosen].astype(np.int64)),
                pa.array(cell["weight_sum"][chosen]),
                pa.array(cell["weight_sq_sum"][chosen]),
                pa.array(cell["weight_min"][chosen].astype(np.float32)),
                pa.array(cell["weight_max"][chosen].astype(np.float32)),
            ]
            parts.append(pa.Table.from_arrays(columns, schema=arrow_schema("usage_by_domain")))
        yield pa.concat_tables(parts) if parts else arrow_schema("usage_by_domain").empty_table()


def _repeated(values: Sequence[str], lengths: Any) -> pa.Array:
    """Each string ``lengths[i]`` times; built as a dictionary, which Parquet keeps."""
    indices = np.repeat(np.arange(len(values), dtype=np.int32), lengths)
    return pa.DictionaryArray.from_arrays(pa.array(indices), pa.array(values)).cast(pa.string())


def _phases(position: Any, num_prompt_tokens: Any) -> pa.Array:
    return pa.DictionaryArray.from_arrays(
        pa.array((position >= num_prompt_tokens).astype(np.int32)),
        pa.array(["prompt", "generated"]),
    ).cast(pa.string())


def _lists(values: Any) -> pa.Array:
    """[rows, top_k] as one list per row."""
    rows, top_k = values.shape
    offsets = pa.array(np.arange(0, (rows + 1) * top_k, top_k, dtype=np.int32))
    field = pa.field("element", pa.from_numpy_dtype(values.dtype))
    return pa.ListArray.from_arrays(offsets, pa.array(values.ravel()), type=pa.list_(field))
