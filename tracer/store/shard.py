"""Writes finished requests as Parquet shards, each file whole or not at all.

A shard is some files of one name: `routing`, `usage` and `usage_by_domain`, with `tokens` where
this worker writes them, `candidates` and `router_logits` where they were recorded. They are
durable before any of them is named in a commit (see ``tracer.store.commit``).

`routing` is sorted by layer, then request and position, with one row group per layer, so that
a filter on a layer reads only its share of the file. Everything is made layer by layer, so the
memory needed is that of one layer and of the sums (see ``tracer.store.run_writer``).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tracer.schema import arrow_schema
from tracer.store.choices import round_mantissa
from tracer.store.layer_file import Layer, write_layers
from tracer.store.parquet_files import ShardFile, stored_schema, write_file, write_table
from tracer.store.rollup import PHASES, DomainUsage, RequestUsage, Rollup
from tracer.store.shard_rows import RouterWeights, ShardRows

__all__ = ["ShardFile", "ShardWriter"]

_BF16_DROPPED, _F16_DROPPED = 16, 13


@dataclass(frozen=True, slots=True)
class ShardWriter:
    """Writes shards of one run.

    precision: bf16 rounds gate weights to bfloat16 precision, f32 keeps them
    """

    lake_path: Path
    run_id: str
    num_experts: int
    precision: str

    def write(self, name: str, rows: ShardRows, *, tokens: bool = True) -> list[ShardFile]:
        """Write the files of one shard; of no requests, none.

        Args:
            name: of every file, without its ending.
            rows: one layer or more.
            tokens: also write `tokens`, which of several workers one does.

        Raises:
            DamagedDataError: the rows contradict themselves.
            OSError: the disk refuses.
            In both cases files of this shard that were finished are removed.
        """
        if not rows.requests:
            return []
        rows.check_frame(self.num_experts)
        shard = _Shard(self, name, rows)
        by_layer = {"routing": shard.routing()}
        if rows.candidate_ids is not None:
            by_layer["candidates"] = shard.candidates()
        if rows.router_logits is not None:
            by_layer["router_logits"] = shard.router_logits()
        # After `routing`, whose rows are summed as they are made.
        by_layer["usage"] = shard.usage()
        others = {"usage_by_domain": shard.usage_by_domain()}
        if tokens:
            others["tokens"] = shard.tokens()
        done: list[ShardFile] = []
        try:
            for table, layers in by_layer.items():
                done.append(shard.write_layers(table, layers))
            for table, groups in others.items():
                done.append(write_table(self.lake_path, table, self.run_id, name, groups))
        except BaseException:
            for file in done:
                (self.lake_path / file.table / file.path).unlink(missing_ok=True)
            raise
        return done

    def write_routers(self, name: str, layers: Mapping[int, RouterWeights]) -> ShardFile:
        """Write the `routers` rows of some layers; commit them with any batch of the run.

        Args:
            name: of the file, without its ending.
            layers: by layer id.

        Raises:
            DamagedDataError: shapes that do not fit the run.
            OSError: the disk refuses; no file is left.
        """
        schema = arrow_schema("routers")

        def groups() -> Iterator[pa.Table]:
            for layer_id, router in sorted(layers.items()):
                router.check(layer_id, self.num_experts)
                row = {
                    "run_id": [self.run_id],
                    "layer_id": [layer_id],
                    "num_experts": [self.num_experts],
                    "hidden_size": [router.weight.shape[1]],
                    "weight": [router.weight.ravel()],
                    "bias": [router.bias],
                    "selection_bias": [router.selection_bias],
                }
                yield pa.table(row, schema=schema)

        return write_table(self.lake_path, "routers", self.run_id, name, groups())


class _Shard:
    """The row groups of each table of one shard."""

    def __init__(self, writer: ShardWriter, name: str, rows: ShardRows) -> None:
        self._writer = writer
        self._name = name
        self._rows = rows
        counts = rows.row_counts
        self._prompts = np.array([request.num_prompt_tokens for request in rows.requests])
        self._request_ids = pa.array([request.request_id for request in rows.requests])
        self._rollup = Rollup(rows, writer.num_experts)
        self._by_request: list[RequestUsage] = []
        self._by_domain: list[DomainUsage] = []
        columns = [
            _repeated(writer.run_id, len(rows.positions)),
            self._picked(np.repeat(np.arange(len(counts)), counts)),
            pa.array(rows.positions),
            _phases(rows.positions, np.repeat(self._prompts, counts)),
        ]
        self._shared = pa.Table.from_arrays(columns, ["run_id", "request_id", "position", "phase"])

    def routing(self) -> Iterator[Layer]:
        rounded = self._rows.gate_weights.dtype == np.uint16  # recorded as bfloat16
        for index, layer_id in enumerate(self._rows.layer_ids):
            ids, weights = self._rows.choices(index, self._writer.num_experts)
            if self._writer.precision == "bf16" and not rounded:
                weights = round_mantissa(weights, _BF16_DROPPED)
            by_request, by_domain = self._rollup.add(ids, weights)
            self._by_request.append(by_request)
            self._by_domain.append(by_domain)
            yield Layer(layer_id, ids.shape[1], [ids, weights])

    def candidates(self) -> Iterator[Layer]:
        for index, layer_id in enumerate(self._rows.layer_ids):
            ids, scores = self._rows.candidates(index, self._writer.num_experts)
            yield Layer(layer_id, ids.shape[1], [ids, scores])

    def router_logits(self) -> Iterator[Layer]:
        for index, layer_id in enumerate(self._rows.layer_ids):
            logits = round_mantissa(self._rows.logits(index), _F16_DROPPED)
            yield Layer(layer_id, logits.shape[1], [logits])

    def usage(self) -> Iterator[Layer]:
        """Rows by request and phase."""
        for layer_id, usage in zip(self._rows.layer_ids, self._by_request, strict=True):
            yield Layer(
                layer_id, usage.lengths, (usage.expert_ids, usage.num_choices, usage.weight_sum)
            )

    def write_layers(self, table: str, layers: Iterator[Layer]) -> ShardFile:
        """Write a table that is sorted by layer."""
        schema, writer = arrow_schema(table), self._writer
        columns = self._groups() if table == "usage" else self._shared
        shared = columns.select([name for name in schema.names if name in columns.column_names])

        def fill(file: BinaryIO) -> int:
            return write_layers(file, schema, shared, layers, writer.num_experts)

        return write_file(writer.lake_path, table, writer.run_id, self._name, fill)

    def _groups(self) -> pa.Table:
        """The columns of `usage` that are the same in every layer."""
        request, phase, tokens = self._rollup.groups.T.astype(np.int32)
        columns = [
            _repeated(self._writer.run_id, len(request)),
            self._picked(request),
            _indexed(phase, PHASES),
            pa.array(np.ascontiguousarray(tokens)),
        ]
        return pa.Table.from_arrays(columns, ["run_id", "request_id", "phase", "num_tokens"])

    def tokens(self) -> Iterator[pa.Table]:
        requests = self._rows.requests
        lengths = np.array([len(request.token_ids) for request in requests])
        total = int(lengths.sum())
        starts = np.repeat(np.cumsum(lengths) - lengths, lengths)
        position = (np.arange(total) - starts).astype(np.int32)
        columns = [
            _repeated(self._writer.run_id, total),
            self._picked(np.repeat(np.arange(len(requests)), lengths)),
            pa.array(position),
            pa.array(np.concatenate([request.token_ids for request in requests])),
            _phases(position, np.repeat(self._prompts, lengths)),
        ]
        yield _table("tokens", columns)

    def usage_by_domain(self) -> Iterator[pa.Table]:
        """By domain, phase in order of its name, layer and expert."""
        parts = self._by_domain
        layers = np.array(self._rows.layer_ids, dtype=np.int16)
        layer = np.repeat(layers, [len(part.domain) for part in parts])

        def joined(name: str) -> npt.NDArray[Any]:
            return np.concatenate([getattr(part, name) for part in parts])

        by_name = np.argsort(np.argsort(PHASES))
        domain, phase = joined("domain"), joined("phase")
        order = np.lexsort((layer, by_name[phase], domain))  # stable: experts stay ascending
        columns = [
            _repeated(self._writer.run_id, len(order)),
            _repeated(self._name, len(order)),
            _indexed(domain[order], self._rollup.domains),
            _indexed(phase[order], PHASES),
            pa.array(layer[order]),
            *(
                pa.array(joined(name)[order])
                for name in (
                    "expert_ids",
                    "num_choices",
                    "weight_sum",
                    "weight_sq_sum",
                    "weight_min",
                    "weight_max",
                )
            ),
        ]
        yield _table("usage_by_domain", columns)

    def _picked(self, numbers: npt.NDArray[np.integer]) -> pa.Array:
        return _indexed(numbers, self._request_ids)


def _table(table: str, columns: Sequence[pa.Array]) -> pa.Table:
    return pa.Table.from_arrays(columns, schema=stored_schema(table))


def _indexed(numbers: npt.NDArray[np.integer | np.bool_], texts: Any) -> pa.Array:
    """Text number i of each row as a dictionary column."""
    if not isinstance(texts, pa.Array):
        texts = pa.array(texts, pa.string())
    return pa.DictionaryArray.from_arrays(pa.array(numbers.astype(np.int32)), texts)


def _repeated(text: str, length: int) -> pa.Array:
    return _indexed(np.zeros(length, dtype=np.int32), [text])


def _phases(
    position: npt.NDArray[np.int32], num_prompt_tokens: npt.NDArray[np.integer]
) -> pa.Array:
    return _indexed(position >= num_prompt_tokens, ["prompt", "generated"])
