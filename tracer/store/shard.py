"""Writes finished requests as Parquet shards, each file whole or not at all.

A shard is some files of one name: `routing`, `usage` and `usage_by_domain`, with `tokens` where
this worker writes them, `candidates` and `router_logits` where they were recorded. They are
durable before any of them is named in a commit (see ``tracer.store.commit``).

`routing` is sorted by layer, then request and position, with one row group per layer, so that
a filter on a layer reads only its share of the file. Everything is made a few layers at a time, so
the memory needed is that of those and of the sums (see ``tracer.store.run_writer``).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tracer.schema import arrow_schema
from tracer.store.choices import round_mantissa
from tracer.store.column_chunks import Runs
from tracer.store.layer_file import Layer, Plain, write_layers, write_plain
from tracer.store.parquet_files import ShardFile, write_file, write_table
from tracer.store.rollup import PHASES, RequestUsage, Rollup
from tracer.store.shard_rows import RouterWeights, ShardRows
from tracer.store.storage import Storage

__all__ = ["ShardFile", "ShardWriter"]

_BF16_DROPPED, _F16_DROPPED = 16, 13


@dataclass(frozen=True, slots=True)
class ShardWriter:
    """Writes shards of one run.

    precision: bf16 rounds gate weights to bfloat16 precision, f32 keeps them
    """

    storage: Storage
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
        done: list[ShardFile] = []
        try:
            for table, layers in by_layer.items():
                done.append(shard.write_layers(table, layers))
            done.append(shard.write_domains())
            if tokens:
                done.append(shard.write_tokens())
        except BaseException:
            for file in done:
                self.storage.remove(f"{file.table}/{file.path}")
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

        return write_table(self.storage, "routers", self.run_id, name, groups())


class _Shard:
    """The row groups of each table of one shard."""

    def __init__(self, writer: ShardWriter, name: str, rows: ShardRows) -> None:
        self._writer = writer
        self._name = name
        self._rows = rows
        self._prompts = np.array([request.num_prompt_tokens for request in rows.requests])
        self._request_ids = [request.request_id for request in rows.requests]
        self._rollup = Rollup(rows, writer.num_experts)
        self._by_request: list[RequestUsage] = []
        self._shared = {
            **self._texts(rows.row_counts, self._rollup.prompt_rows),
            "position": (rows.positions, "DELTA_BINARY_PACKED"),
        }

    def routing(self) -> Iterator[Layer]:
        rounded = self._rows.gate_weights.dtype == np.uint16  # recorded as bfloat16
        choices = self._rows.choices(self._writer.num_experts)
        for layer_id, (ids, weights) in zip(self._rows.layer_ids, choices, strict=True):
            if self._writer.precision == "bf16" and not rounded:
                weights = round_mantissa(weights, _BF16_DROPPED)  # noqa: PLW2901
            self._by_request.append(self._rollup.add(ids, weights))
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
        shared = {name: columns[name] for name in schema.names if name in columns}
        rows = len(self._rollup.groups if table == "usage" else self._rows.positions)

        def fill(file: BinaryIO) -> int:
            return write_layers(
                file,
                schema,
                rows=rows,
                shared=shared,
                layers=layers,
                num_experts=writer.num_experts,
            )

        return write_file(writer.storage, table, writer.run_id, self._name, fill)

    def write_tokens(self) -> ShardFile:
        """Write `tokens`, by request and position."""
        requests, writer = self._rows.requests, self._writer
        lengths = np.array([len(request.token_ids) for request in requests])
        total = int(lengths.sum())
        starts = np.repeat(np.cumsum(lengths) - lengths, lengths)
        columns: dict[str, Plain] = {
            **self._texts(lengths, np.minimum(self._prompts, lengths)),
            "position": ((np.arange(total) - starts).astype(np.int32), "DELTA_BINARY_PACKED"),
            "token_id": (
                np.concatenate([request.token_ids for request in requests]),
                "RLE_DICTIONARY",
            ),
        }

        def fill(file: BinaryIO) -> int:
            return write_plain(file, arrow_schema("tokens"), total, columns)

        return write_file(writer.storage, "tokens", writer.run_id, self._name, fill)

    def _texts(
        self, lengths: npt.NDArray[np.int64], in_prompt: npt.NDArray[np.int64]
    ) -> dict[str, Plain]:
        """Texts of rows by request, so many of each and the first of them in its prompt."""
        numbers = np.arange(len(lengths))
        phases = np.column_stack([in_prompt, lengths - in_prompt]).ravel()
        return {
            "run_id": self._constant(self._writer.run_id, int(lengths.sum())),
            "request_id": Runs(self._request_ids, numbers, lengths),
            "phase": Runs(("prompt", "generated"), np.tile([0, 1], len(lengths)), phases),
        }

    def _groups(self) -> dict[str, Plain]:
        """The columns of `usage` that are the same in every layer."""
        request, phase, tokens = self._rollup.groups.T
        ones = np.ones(len(request), dtype=np.int64)
        return {
            "run_id": self._constant(self._writer.run_id, len(request)),
            "request_id": Runs(self._request_ids, request, ones),
            "phase": Runs(PHASES, phase, ones),
            "num_tokens": (tokens.astype(np.int32), "DELTA_BINARY_PACKED"),
        }

    def write_domains(self) -> ShardFile:
        """Write `usage_by_domain`, by domain, phase in order of its name, layer and expert."""
        usage, writer = self._rollup.by_domain(), self._writer
        num_layers, num_domains, num_phases = usage.lengths.shape
        by_name = np.argsort(PHASES)
        ends = np.cumsum(usage.lengths).reshape(usage.lengths.shape)
        # Of every domain, phase and layer, in this order: how many entries, and where they start.
        lengths, starts = (
            numbers.transpose(1, 2, 0)[:, by_name].ravel()
            for numbers in (usage.lengths, ends - usage.lengths)
        )
        total = int(lengths.sum())
        order = np.repeat(starts - (np.cumsum(lengths) - lengths), lengths) + np.arange(total)
        phases = np.repeat(np.tile(by_name, num_domains), num_layers)
        layers = np.tile(np.arange(num_layers), num_phases * num_domains)
        domains = np.repeat(np.arange(num_domains), num_phases * num_layers)
        columns: dict[str, Plain] = {
            "run_id": self._constant(writer.run_id, total),
            "shard": self._constant(self._name, total),
            "domain": Runs(self._rollup.domains, domains, lengths),
            "phase": Runs(PHASES, phases, lengths),
            "layer_id": Runs(self._rows.layer_ids, layers, lengths),
            "expert_id": (usage.expert_ids[order].astype(np.int32), "DELTA_BINARY_PACKED"),
            "num_choices": (usage.num_choices[order], "DELTA_BINARY_PACKED"),
            "weight_sum": (usage.weight_sum[order], "BYTE_STREAM_SPLIT"),
            "weight_sq_sum": (usage.weight_sq_sum[order], "BYTE_STREAM_SPLIT"),
            "weight_min": (usage.weight_min[order], "BYTE_STREAM_SPLIT"),
            "weight_max": (usage.weight_max[order], "BYTE_STREAM_SPLIT"),
        }

        def fill(file: BinaryIO) -> int:
            return write_plain(file, arrow_schema("usage_by_domain"), total, columns)

        return write_file(writer.storage, "usage_by_domain", writer.run_id, self._name, fill)

    def _constant(self, text: str, rows: int) -> Runs:
        return Runs([text], np.zeros(1, dtype=np.int64), np.array([rows]))
