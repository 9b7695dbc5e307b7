"""Result frames as a table, JSON, CSV or Parquet, on stdout or in a file."""

import io
from pathlib import Path
from typing import Any

import click
import polars as pl

from tracer.cli.options import json_text
from tracer.cli.tables import print_table
from tracer.files import write_whole

__all__ = ["print_frame", "write_frame"]

_MOST_ROWS = 1_000  # a table is laid out whole, which takes seconds for tens of thousands


def print_frame(frame: pl.DataFrame, output_format: str) -> None:
    """Print on stdout; ``output_format`` is table (the first 1,000 rows), json or csv."""
    if output_format == "table":
        rows = frame.head(_MOST_ROWS).rows()
        print_table(frame.columns, [[_cell(value) for value in row] for row in rows])
        if len(rows) < frame.height:
            click.echo(
                f"showing {len(rows):,} of {frame.height:,} rows; --format csv or json prints all",
                err=True,
            )
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
        buffer.write(f"{json_text(frame.to_dicts(), indent=2)}\n".encode())
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
        return json_text(value)
    return str(value)
