"""Result frames as a table, JSON, CSV or Parquet, on stdout or in a file."""

import io
from pathlib import Path
from typing import Any

import click
import polars as pl

from tracer.analysis.measures.catalogue import Measure
from tracer.cli.options import json_text
from tracer.cli.tables import print_table
from tracer.files import write_whole

__all__ = ["narrow", "print_frame", "write_frame"]

_MOST_BESIDE = 2  # values that a table shows side by side
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


def narrow(frame: pl.DataFrame, measure: Measure) -> pl.DataFrame:
    """For people: what stands behind a value as an interval, a band of chance and one p.

    Measures of many values have a row for each, and no columns that are neither key nor value.
    """

    def band(low: str, high: str) -> pl.Expr:
        ends = [pl.col(name).map_elements("{:.4g}".format, pl.String) for name in (low, high)]
        return pl.concat_str(*ends, separator=" to ")

    behind: dict[str, list[pl.Expr]] = {}
    for value in measure.values:
        if f"{value}_low" in frame.columns:
            behind[value] = [band(f"{value}_low", f"{value}_high").alias("interval")]
        if f"{value}_chance" in frame.columns:
            chance = band(f"{value}_chance_low", f"{value}_chance_high").alias("by chance")
            behind[value] += [chance, pl.col(f"{value}_p_adjusted").fill_nan(None).alias("p")]
    if behind and len(measure.values) > _MOST_BESIDE:
        number = pl.int_range(pl.len()).alias("row")
        rows = [
            frame.select(
                number,
                *measure.key,
                pl.lit(value).alias("measure"),
                pl.col(value).cast(pl.Float64).alias("value"),
                *behind[value],
            )
            for value in measure.values
        ]
        return pl.concat(rows).sort("row", maintain_order=True).drop("row")
    columns: list[pl.Expr] = []
    for column in measure.columns:
        columns.append(pl.col(column.name))
        # No two columns of a frame have one name; blanks do not show.
        blanks = " " * (len(columns) + 1)
        columns += [part.name.suffix(blanks) for part in behind.get(column.name, [])]
    return frame.select(columns)


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
