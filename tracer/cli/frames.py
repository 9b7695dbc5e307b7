"""Result frames as a table, JSON, CSV or Parquet, on stdout or in a file."""

import io
import json
from pathlib import Path
from typing import Any

import click
import polars as pl

from tracer.cli.tables import print_table
from tracer.files import write_whole

__all__ = ["print_frame", "write_frame"]


def print_frame(frame: pl.DataFrame, output_format: str) -> None:
    """Print on stdout; ``output_format`` is table, json or csv."""
    if output_format == "table":
        print_table(frame.columns, [[_cell(value) for value in row] for row in frame.rows()])
    else:
        click.echo(_encoded(frame, output_format), nl=False)


def write_frame(frame: pl.DataFrame, output_format: str, path: Path) -> None:
    """Write to ``path``, whole or not at all; a table is written as CSV."""
    write_whole(path, _encoded(frame, "csv" if output_format == "table" else output_format))


def _encoded(frame: pl.DataFrame, output_format: str) -> bytes:
    buffer = io.BytesIO()
    if output_format == "parquet":
        frame.write_parquet(buffer)
    elif output_format == "json":
        text = json.dumps(frame.to_dicts(), default=str, allow_nan=True, indent=2)
        buffer.write(f"{text}\n".encode())
    else:
        nested = [n for n, dtype in frame.schema.items() if dtype.is_nested()]
        texts = [
            pl.Series(name, [None if v is None else _cell(v) for v in frame[name]], pl.String)
            for name in nested
        ]
        frame.with_columns(texts).write_csv(buffer)
    return buffer.getvalue()


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, pl.Series):
        value = value.to_list()
    if isinstance(value, list | dict):
        return json.dumps(value, default=str)
    return str(value)
