"""Several files of one table and run as one file: the same rows, or sums of the same choices.

Memory: of the tables that are sorted by layer one layer of the merged file is held at a time, of
the others the whole.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tracer.errors import DamagedDataError
from tracer.schema import arrow_schema
from tracer.store.column_chunks import Runs
from tracer.store.layer_file import Layer, Plain, write_layers
from tracer.store.parquet_files import ShardFile, stored_schema, write_file, write_table
from tracer.store.parquet_source import open_parquet, read_parquet
from tracer.store.storage import Storage

__all__ = ["LAYERED", "Merge"]

LAYERED = ("routing", "candidates", "router_logits", "usage")
# How the sums of two shards in `usage_by_domain` are joined, and what they are sums of.
_SUMS = {
    "num_choices": "sum",
    "weight_sum": "sum",
    "weight_sq_sum": "sum",
    "weight_min": "min",
    "weight_max": "max",
}
_KEYS = ["domain", "phase", "layer_id", "expert_id"]


@dataclass(frozen=True, slots=True)
class Merge:
    """A merged file to be: ``<lake>/<table>/<folder>/<name>.parquet``."""

    storage: Storage
    table: str
    run_id: str
    folder: str
    name: str

    def by_layer(
        self, paths: Sequence[str], layer_ids: Sequence[int], num_experts: int
    ) -> ShardFile:
        """Of a table in ``LAYERED``: one row group per layer, in it file after file.

        Args:
            paths: files with one row group for each of ``layer_ids``, in their order.
            layer_ids: ascending.
            num_experts: expert ids are 0..num_experts-1.

        Raises:
            DamagedDataError: the layers of a file do not have the same rows.
        """
        schema = arrow_schema(self.table)
        lists = [field.name for field in schema if pa.types.is_list(field.type)]
        shared = [name for name in schema.names if name not in (*lists, "layer_id")]
        texts = [field.name for field in schema if field.type == pa.string()]
        files = [open_parquet(path, read_dictionary=texts) for path in paths]
        keys = [file.read_row_group(0, shared) for file in files]

        def layers() -> Iterator[Layer]:
            for number, layer_id in enumerate(layer_ids):
                parts = [file.read_row_group(number) for file in files]
                for part, key, path in zip(parts, keys, paths, strict=True):
                    if not part.select(shared).equals(key):
                        raise DamagedDataError(
                            f"{path}: layer {layer_id} has other rows than the first one",
                            "`tracer verify` says what is wrong.",
                        )
                whole = pa.concat_tables(part.select(lists) for part in parts)
                yield _layer(layer_id, whole, alike=self.table != "usage")

        together = pa.concat_tables(keys).unify_dictionaries().combine_chunks()

        def fill(file: BinaryIO) -> int:
            return write_layers(
                file,
                schema,
                rows=together.num_rows,
                shared={name: _plain(together[name].combine_chunks()) for name in shared},
                layers=layers(),
                num_experts=num_experts,
            )

        try:
            return write_file(self.storage, self.table, self.folder, self.name, fill)
        finally:
            for file in files:
                file.close()

    def rows(self, paths: Sequence[str]) -> ShardFile:
        """Of a table without layers: one row group, in it file after file."""
        schema = stored_schema(self.table)
        parts = [read_parquet(path).cast(schema) for path in paths]
        whole = pa.concat_tables(parts).unify_dictionaries()
        return write_table(self.storage, self.table, self.folder, self.name, [whole])

    def sums(self, paths: Sequence[str]) -> ShardFile:
        """Of `usage_by_domain`: the shards as one shard, named as the file."""
        rows = pa.concat_tables(read_parquet(path) for path in paths)
        sums = rows.group_by(_KEYS).aggregate(list(_SUMS.items()))
        columns = {key: sums[key] for key in _KEYS}
        columns |= {name: sums[f"{name}_{how}"] for name, how in _SUMS.items()}
        columns["run_id"] = pa.repeat(self.run_id, sums.num_rows)
        columns["shard"] = pa.repeat(self.name, sums.num_rows)
        schema = arrow_schema(self.table)
        whole = pa.table({field.name: columns[field.name].cast(field.type) for field in schema})
        whole = whole.sort_by([(key, "ascending") for key in _KEYS])
        stored = whole.cast(stored_schema(self.table))
        return write_table(self.storage, self.table, self.folder, self.name, [stored])


def _plain(column: pa.Array) -> Plain:
    """A column that the layers share, as the writer takes it."""
    if not pa.types.is_dictionary(column.type):
        return column.to_numpy(), "DELTA_BINARY_PACKED"
    numbers = column.indices.to_numpy()
    begins = np.flatnonzero(np.diff(numbers, prepend=-1))
    lengths = np.diff(begins, append=len(numbers))
    return Runs(column.dictionary.to_pylist(), numbers[begins], lengths)


def _layer(layer_id: int, lists: pa.Table, *, alike: bool) -> Layer:
    """``alike``: all lists of the table have one length."""
    columns = [column.combine_chunks() for column in lists.columns]
    lengths = pc.list_value_length(columns[0]).to_numpy().astype(np.int64)
    if alike and (lengths != lengths[0]).any():
        raise DamagedDataError(
            f"layer {layer_id} has lists of several lengths", "`tracer verify` says where."
        )
    values = [column.flatten().to_numpy() for column in columns]
    return Layer(layer_id, int(lengths[0]) if alike else lengths, values)
