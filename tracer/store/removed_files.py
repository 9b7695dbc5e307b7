"""Files that tables name no more: kept for a while for those who read, then removed.

What is taken out of the tables is written down first, in ``_tracer/removed/<time>-<run>.json``.
"""

import json
import time
from collections.abc import Sequence
from pathlib import Path

from tracer.errors import DamagedDataError
from tracer.store.delta_tables import inside
from tracer.store.durable import write_durably
from tracer.store.lake import Lake

__all__ = ["kept_files", "note_removed", "remove_expired"]


def note_removed(lake_path: Path, run_id: str, paths: Sequence[str]) -> None:
    """Say, durably, that files (paths below the lake) are about to leave the tables."""
    if not paths:
        return
    note = lake_path / "_tracer" / "removed" / f"{time.time_ns():020d}-{run_id}.json"
    write_durably(note, json.dumps(sorted(paths)))


def remove_expired(lake: Lake, keep_hours: float) -> tuple[int, int]:
    """Remove files that left the tables at least so many hours ago; those that are named stay.

    Returns:
        Files and bytes removed.

    Raises:
        DamagedDataError: a note that is none, or a table that cannot be read.
    """
    expired = [note for note in _notes(lake.path) if _age_hours(note) >= keep_hours]
    files = freed = 0
    live: dict[str, set[str]] = {}
    for note in expired:
        for path in _read(note):
            table = path.split("/", 1)[0]
            if table not in live:
                live[table] = set(lake.named_files(table))
            file = lake.path / path
            if str(file) in live[table]:  # the commit that was announced never came
                continue
            if file.is_file():
                freed += file.stat().st_size
                file.unlink()
                files += 1
        note.unlink()
    return files, freed


def kept_files(lake_path: Path) -> set[str]:
    """Paths below the lake of files that left the tables and are still there."""
    return {path for note in _notes(lake_path) for path in _read(note)}


def _notes(lake_path: Path) -> list[Path]:
    return sorted((lake_path / "_tracer" / "removed").glob("*.json"))


def _age_hours(note: Path) -> float:
    stamp = note.name.split("-", 1)[0]
    return (time.time_ns() - int(stamp)) / 3.6e12 if stamp.isdigit() else 0.0


def _read(note: Path) -> list[str]:
    try:
        paths = [str(path) for path in json.loads(note.read_text(encoding="utf-8"))]
    except (ValueError, TypeError, RecursionError) as error:
        raise DamagedDataError(f"{note} is not a list of files", "remove it.") from error
    return [inside(path, str(note)) for path in paths]
