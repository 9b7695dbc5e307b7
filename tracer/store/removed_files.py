"""Files that tables name no more: kept for a while for those who read, then removed.

What is taken out of the tables is written down first, in ``_tracer/removed/<time>-<run>.json``.
"""

import contextlib
import json
import time
from collections.abc import Sequence

from tracer.errors import DamagedDataError
from tracer.store.delta_tables import inside
from tracer.store.lake import Lake
from tracer.store.storage import Storage

_FOLDER = "_tracer/removed"

__all__ = ["kept_files", "note_removed", "remove_expired"]


def note_removed(storage: Storage, run_id: str, paths: Sequence[str]) -> None:
    """Say, durably, that files (paths below the lake) are about to leave the tables."""
    if not paths:
        return
    storage.write(f"{_FOLDER}/{time.time_ns():020d}-{run_id}.json", json.dumps(sorted(paths)))


def remove_expired(lake: Lake, keep_hours: float) -> tuple[int, int]:
    """Remove files that left the tables at least so many hours ago; those that are named stay.

    Returns:
        Files and bytes removed.

    Raises:
        DamagedDataError: a note that is none, or a table that cannot be read.
    """
    storage = lake.storage
    expired = [note for note in _notes(storage) if _age_hours(note) >= keep_hours]
    files = freed = 0
    live: dict[str, set[str]] = {}
    for note in expired:
        for path in _read(storage, note):
            table = path.split("/", 1)[0]
            if table not in live:
                live[table] = set(lake.named_files(table))
            if storage.locate(path) in live[table]:  # the commit that was announced never came
                continue
            with contextlib.suppress(FileNotFoundError):
                freed += storage.size(path)
                storage.remove(path)
                files += 1
        storage.remove(note)
    return files, freed


def kept_files(storage: Storage) -> set[str]:
    """Paths below the lake of files that left the tables and are still there."""
    return {path for note in _notes(storage) for path in _read(storage, note)}


def _notes(storage: Storage) -> list[str]:
    return [name for name in storage.names(_FOLDER) if name.endswith(".json")]


def _age_hours(note: str) -> float:
    stamp = note.rsplit("/", 1)[1].split("-", 1)[0]
    return (time.time_ns() - int(stamp)) / 3.6e12 if stamp.isdigit() else 0.0


def _read(storage: Storage, note: str) -> list[str]:
    try:
        paths = [str(path) for path in json.loads(storage.read(note))]
    except (ValueError, TypeError, RecursionError) as error:
        raise DamagedDataError(
            f"{storage.locate(note)} is not a list of files", "remove it."
        ) from error
    return [inside(path, note) for path in paths]
