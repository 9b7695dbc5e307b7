"""Tables and queries as files: finds ``schemas/`` and ``queries/``, makes Arrow schemas.

Both folders stand at the top of the repository and travel inside the wheel as
``tracer/_schemas`` and ``tracer/_queries``; this module alone knows both places.
"""

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa

__all__ = [
    "OPTIONAL_TABLES",
    "TABLES",
    "Column",
    "TableSchema",
    "arrow_schema",
    "query_path",
    "table_schema",
]

# A lake has these only once a run recorded them.
OPTIONAL_TABLES = ("candidates", "router_logits", "routers")
TABLES = ("runs", "requests", "tokens", "routing", "usage", "usage_by_domain", *OPTIONAL_TABLES)

_TYPES: dict[str, pa.DataType] = {
    "string": pa.string(),
    "bool": pa.bool_(),
    "int16": pa.int16(),
    "int32": pa.int32(),
    "int64": pa.int64(),
    "float32": pa.float32(),
    "float64": pa.float64(),
    "timestamp": pa.timestamp("us", tz="UTC"),
    "list<int16>": pa.list_(pa.field("element", pa.int16())),
    "list<int32>": pa.list_(pa.field("element", pa.int32())),
    "list<float32>": pa.list_(pa.field("element", pa.float32())),
    "list<float64>": pa.list_(pa.field("element", pa.float64())),
    "map<string,string>": pa.map_(pa.string(), pa.string()),
}


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table. ``unit`` is empty for names, ids and pure numbers."""

    name: str
    type: str
    unit: str
    doc: str
    nullable: bool


@dataclass(frozen=True, slots=True)
class TableSchema:
    """One table of the lake, as ``schemas/<name>.toml`` says it."""

    name: str
    row: str
    doc: str
    key: tuple[str, ...]
    columns: tuple[Column, ...]


def _folder(name: str) -> Path:
    package = Path(__file__).parent
    installed = package / f"_{name}"
    return installed if installed.is_dir() else package.parent / name


def query_path(name: str) -> Path:
    """Where ``queries/<name>.sql`` is; the file may not exist."""
    return _folder("queries") / f"{name}.sql"


@cache
def table_schema(name: str) -> TableSchema:
    """Read ``schemas/<name>.toml``. ``name`` is one of ``TABLES``."""
    raw: dict[str, Any] = tomllib.loads(
        (_folder("schemas") / f"{name}.toml").read_text(encoding="utf-8")
    )
    columns = tuple(
        Column(
            column,
            spec["type"],
            spec.get("unit", ""),
            spec["doc"],
            nullable=spec.get("nullable", False),
        )
        for column, spec in raw["columns"].items()
    )
    return TableSchema(name, raw["row"], raw["doc"], tuple(raw["key"]), columns)


@cache
def arrow_schema(name: str) -> pa.Schema:
    """Arrow schema of a table: signed integers and float32/float64 only.

    Delta turns unsigned bytes into signed ones and Spark reads no float16, so neither is used.
    Fields are nullable throughout, as Delta readers expect; ``Column.nullable`` tells which
    columns really hold nulls.
    """
    return pa.schema([pa.field(c.name, _TYPES[c.type]) for c in table_schema(name).columns])
