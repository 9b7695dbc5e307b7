"""Rows of one run out of one file, whoever wrote it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.compute as pc

from tracer.errors import DamagedDataError, first_line
from tracer.schema import arrow_schema
from tracer.store.parquet_source import is_outage, open_parquet, read_parquet

__all__ = ["RESTORE", "row_groups_of_run", "rows_of_run", "told_as_damage"]

RESTORE = "restore the file from a copy, or record the run again under another --run-id."


def rows_of_run(table: str, path: str, run_id: str, columns: Sequence[str]) -> pa.Table:
    """Some columns of a run's rows, in the types of the table's schema."""
    wanted = _with_run_id(table, columns)
    found = read_parquet(path, wanted.names)
    return _mine(found, wanted, run_id).select(list(columns))


def row_groups_of_run(
    table: str, path: str, run_id: str, columns: Sequence[str]
) -> Iterator[pa.Table]:
    """As ``rows_of_run``, a row group at a time: in `routing` that is a layer of a shard."""
    wanted = _with_run_id(table, columns)
    with open_parquet(path) as file:
        for group in range(file.num_row_groups):
            found = file.read_row_group(group, columns=wanted.names)
            yield _mine(found, wanted, run_id).select(list(columns))


def _with_run_id(table: str, columns: Sequence[str]) -> pa.Schema:
    schema = arrow_schema(table)
    return pa.schema([schema.field(name) for name in dict.fromkeys([*columns, "run_id"])])


def _mine(found: pa.Table, wanted: pa.Schema, run_id: str) -> pa.Table:
    # Other Delta tools note Arrow types of their own, with which pyarrow cannot compare.
    return found.select(wanted.names).cast(wanted).filter(pc.field("run_id") == run_id)


@contextmanager
def told_as_damage(path: str) -> Iterator[None]:
    """A file of the lake that cannot be read is damage, not a fault of the program."""
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        if is_outage(error):
            raise
        raise DamagedDataError(f"{path} cannot be read: {first_line(error)}", RESTORE) from error
