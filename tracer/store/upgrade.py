"""Brings a lake that an older version of this program made up to date, in place.

Schema version 1 is the first there is. Within a version only columns and tables that may be empty
and settings of the tables come along; every command reads such a lake as it is, and this adds what
it lacks. A later version adds its own step here.
"""

from pathlib import Path

from tracer.errors import InputError, NotALakeError
from tracer.schema import TABLES
from tracer.store.delta_tables import SCHEMA_VERSION, add_columns, schema_version, set_properties
from tracer.store.lake import Lake
from tracer.store.lake_location import is_lake, open_storage

__all__ = ["upgrade_lake"]


def upgrade_lake(path: Path | str) -> list[str]:
    """Add what the lake at ``path`` lacks; others may read and write it meanwhile.

    Returns:
        What was added, table by table; empty if it lacked nothing.

    Raises:
        NotALakeError: nothing there, or something else.
        InputError: a version this program does not know.
        CommitFailedError: others kept committing in between.
    """
    storage = open_storage(path)
    if not is_lake(storage):
        raise NotALakeError(path)
    lake = Lake(storage)
    version = schema_version(lake.delta("runs"))
    if version != SCHEMA_VERSION:
        raise InputError(
            f"{path} has lake schema version {version or 'unknown'},"
            f" this program knows {SCHEMA_VERSION}",
            "install the moe-tracer version that wrote it, or a newer one.",
        )
    added = []
    for table in TABLES:
        if lake.is_absent(table):
            continue
        lake.delta(table)  # told as damage if it cannot be read
        added += [f"{table}: column {name}" for name in add_columns(storage, table)]
        added += [f"{table}: setting {name}" for name in set_properties(storage, table)]
    return added
