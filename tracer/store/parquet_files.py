"""One Parquet file of a table, written whole or not at all; and those that pyarrow writes.

Encodings were chosen by measuring size and what every reader can read. The tables that are
sorted by layer have a writer of their own, ``tracer.store.layer_file``.
"""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from tracer.schema import arrow_schema
from tracer.store.storage import Storage

__all__ = [
    "ShardFile",
    "stored_schema",
    "write_file",
    "write_table",
]

_ZSTD_LEVEL = 1  # level 3 saves 1 % of the size for a tenth of the speed
_MAX_DICTIONARY = 1 << 28
# Columns that are not dictionary-coded, which is Parquet's default; by measured size.
_ENCODINGS = {
    "tokens": {"position": "DELTA_BINARY_PACKED"},
    "usage_by_domain": {"weight_sum": "PLAIN", "weight_sq_sum": "PLAIN"},
    "routers": {"weight.list.element": "BYTE_STREAM_SPLIT"},
}
# Each row has texts of its own here; elsewhere few texts stand in many rows.
_DISTINCT_TEXTS = ("requests", "routers")


@dataclass(frozen=True, slots=True)
class ShardFile:
    """One durable Parquet file, not yet part of any table.

    path: relative to the table's folder; size: bytes
    sha256: of its bytes, hex; empty where an older version staged it
    """

    table: str
    path: str
    num_rows: int
    size: int
    modified_ms: int
    sha256: str = ""

    def to_dict(self) -> dict[str, Any]:
        """As plain values, to cross process boundaries and be staged as JSON."""
        return asdict(self)


def stored_schema(table: str) -> pa.Schema:
    """Schema to hand rows over in: ``arrow_schema``, texts that repeat as dictionaries.

    The Parquet writer takes an Arrow dictionary as its own instead of looking up every row. In
    the file and to its readers they are plain strings.
    """
    schema = arrow_schema(table)
    if table in _DISTINCT_TEXTS:
        return schema
    indexed = pa.dictionary(pa.int32(), pa.string())
    return pa.schema(
        [field.with_type(indexed) if field.type == pa.string() else field for field in schema]
    )


def write_table(
    storage: Storage,
    table: str,
    folder: str,
    name: str,
    row_groups: Iterable[pa.Table],
) -> ShardFile:
    """Write a file of a table with pyarrow; see ``write_file``.

    Args:
        storage: of the lake.
        table: which table.
        folder: below the table's: the run's, or one in it.
        name: of the file, without its ending.
        row_groups: of ``stored_schema(table)``; each becomes one row group, empty ones none.

    Raises:
        OSError: disk full, no permission; the hidden file is removed.
    """
    schema = stored_schema(table)

    def fill(file: BinaryIO) -> int:
        num_rows = 0
        with pq.ParquetWriter(file, schema, **_writer_options(table)) as writer:
            for group in row_groups:
                if group.num_rows:
                    writer.write_table(group, row_group_size=group.num_rows)
                    num_rows += group.num_rows
        return num_rows

    return write_file(storage, table, folder, name, fill)


def write_file(
    storage: Storage, table: str, folder: str, name: str, fill: Callable[[BinaryIO], int]
) -> ShardFile:
    """Write ``<lake>/<table>/<folder>/<name>.parquet``, whole or not at all.

    ``fill`` writes the content and says its number of rows.

    Raises:
        OSError: disk full, no permission, no server; nothing is left, as after any other error.
    """
    path = f"{folder}/{name}.parquet"
    file = storage.write_file(f"{table}/{path}", fill)
    return ShardFile(table, path, file.num_rows, file.size, file.modified_ms, file.sha256)


def _writer_options(table: str) -> dict[str, Any]:
    """Measured encodings, and bounds of the columns that readers prune by."""
    encodings = _ENCODINGS.get(table)
    schema = arrow_schema(table)
    options: dict[str, Any] = {
        "compression": "zstd",
        "compression_level": _ZSTD_LEVEL,
        "store_schema": False,  # plain Parquet types only: readers see no Arrow dictionaries
        # No reader prunes by the values inside lists, and collecting their bounds takes time.
        "write_statistics": [field.name for field in schema if not pa.types.is_nested(field.type)],
    }
    if table not in _DISTINCT_TEXTS:
        # Beyond its limit pyarrow spells every text out, row by row.
        options["dictionary_pagesize_limit"] = _MAX_DICTIONARY
    if encodings:
        options["column_encoding"] = encodings
        options["use_dictionary"] = [leaf for leaf in _leaves(schema) if leaf not in encodings]
    return options


def _leaves(schema: pa.Schema) -> list[str]:
    return [
        f"{field.name}.list.element" if pa.types.is_list(field.type) else field.name
        for field in schema
    ]
