"""Rows of one run out of one file, whoever wrote it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tracer.errors import DamagedDataError, first_line
from tracer.schema import arrow_schema

__all__ = ["RESTORE", "rows_of_run", "told_as_damage"]

RESTORE = "restore the file from a copy, or record the run again under another --run-id."


def rows_of_run(table: str, path: str, run_id: str, columns: Sequence[str]) -> pa.Table:
    """Some columns of a run's rows, in the types of the table's schema."""
    schema = arrow_schema(table)
    wanted = pa.schema([schema.field(name) for name in dict.fromkeys([*columns, "run_id"])])
    found = pq.read_table(path, columns=wanted.names, partitioning=None).select(wanted.names)
    # Other Delta tools note Arrow types of their own, with which pyarrow cannot compare.
    mine = found.cast(wanted).filter(pc.field("run_id") == run_id)
    return mine.select(list(columns))


@contextmanager
def told_as_damage(path: str) -> Iterator[None]:
    """A file of the lake that cannot be read is damage, not a fault of the program."""
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        raise DamagedDataError(f"{path} cannot be read: {first_line(error)}", RESTORE) from error
