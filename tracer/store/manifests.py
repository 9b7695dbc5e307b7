"""What each batch consists of, as JSON beside the tables: files, sizes, rows and digests.

A batch is *staged* before its first commit and filed as *committed* after its last:

    _tracer/staged/<run_id>/<batch>.json      will be committed, by whoever writes the run next
    _tracer/committed/<run_id>/<batch>.json   was; ``sha256sum`` tells whether a file still is it
"""

import json
from collections.abc import Sequence
from pathlib import Path

from tracer.errors import DamagedDataError
from tracer.store.delta_tables import inside
from tracer.store.durable import write_durably
from tracer.store.parquet_files import ShardFile

__all__ = [
    "committed_files",
    "file_as_committed",
    "note_merged",
    "read_batch",
    "read_digests",
    "stage_batch",
    "staged_batches",
]


def stage_batch(lake_path: Path, run_id: str, batch: int, files: Sequence[ShardFile]) -> Path:
    """Say, durably, which files a batch will be made of.

    Returns:
        The staged batch's own file.
    """
    return _write(_folder(lake_path, "staged", run_id) / f"{batch:06d}.json", files)


def note_merged(lake_path: Path, run_id: str, file: ShardFile) -> None:
    """Keep the digest of a file that is about to take the place of others."""
    name = f"{file.table}-{Path(file.path).stem}.json"
    _write(_folder(lake_path, "committed", run_id) / name, [file])


def _write(path: Path, files: Sequence[ShardFile]) -> Path:
    write_durably(path, json.dumps([shard.to_dict() for shard in files]))
    return path


def staged_batches(lake_path: Path, run_id: str) -> list[Path]:
    """Batches that were staged and not yet committed, oldest first."""
    return sorted(_folder(lake_path, "staged", run_id).glob("*.json"))


def read_batch(path: Path) -> list[ShardFile]:
    """The files of a staged or committed batch.

    Raises:
        DamagedDataError: not what ``stage_batch`` writes.
    """
    try:
        files = [ShardFile(**entry) for entry in json.loads(path.read_text(encoding="utf-8"))]
    except (ValueError, TypeError, RecursionError) as error:
        raise DamagedDataError(
            f"{path} is not a list of files", "restore the file from a copy."
        ) from error
    for file in files:
        inside(f"{file.table}/{file.path}", str(path))
    return files


def file_as_committed(lake_path: Path, run_id: str, staged: Path) -> None:
    """The batch is in every table: keep what it consisted of."""
    folder = _folder(lake_path, "committed", run_id)
    folder.mkdir(parents=True, exist_ok=True)
    staged.replace(folder / staged.name)


def committed_files(lake_path: Path, run_id: str) -> set[str]:
    """Paths below the lake of all files that were ever committed for a run.

    One that no table names any more was replaced or removed; who reads an older version of the
    table still needs it.
    """
    return {
        f"{file.table}/{file.path}"
        for path in _folder(lake_path, "committed", run_id).glob("*.json")
        for file in read_batch(path)
    }


def read_digests(lake_path: Path, run_id: str | None = None) -> dict[str, str]:
    """SHA-256, hex, by path below the lake, of the files of all runs or one.

    Files of a lake that an older version wrote have none.
    """
    runs = "*" if run_id is None else run_id
    return {
        f"{file.table}/{file.path}": file.sha256
        for path in sorted((lake_path / "_tracer" / "committed").glob(f"{runs}/*.json"))
        for file in read_batch(path)
        if file.sha256
    }


def _folder(lake_path: Path, state: str, run_id: str) -> Path:
    return lake_path / "_tracer" / state / run_id
