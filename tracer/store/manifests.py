"""What each batch consists of, as JSON beside the tables: files, sizes, rows and digests.

A batch is *staged* before its first commit and filed as *committed* after its last:

    _tracer/staged/<run_id>/<batch>.json      will be committed, by whoever writes the run next
    _tracer/committed/<run_id>/<batch>.json   was; ``sha256sum`` tells whether a file still is it
"""

import json
from collections.abc import Sequence
from pathlib import PurePosixPath

from tracer.errors import DamagedDataError
from tracer.store.delta_tables import inside
from tracer.store.parquet_files import ShardFile
from tracer.store.storage import Storage

__all__ = [
    "committed_files",
    "file_as_committed",
    "note_merged",
    "read_batch",
    "read_digests",
    "stage_batch",
    "staged_batches",
]


def stage_batch(storage: Storage, run_id: str, batch: int, files: Sequence[ShardFile]) -> str:
    """Say, durably, which files a batch will be made of.

    Returns:
        Name of the staged batch's own file.
    """
    return _write(storage, f"{_folder('staged', run_id)}/{batch:06d}.json", files)


def note_merged(storage: Storage, run_id: str, file: ShardFile) -> None:
    """Keep the digest of a file that is about to take the place of others."""
    name = f"{file.table}-{PurePosixPath(file.path).stem}.json"
    _write(storage, f"{_folder('committed', run_id)}/{name}", [file])


def _write(storage: Storage, name: str, files: Sequence[ShardFile]) -> str:
    storage.write(name, json.dumps([shard.to_dict() for shard in files]))
    return name


def staged_batches(storage: Storage, run_id: str) -> list[str]:
    """Names of the files of batches that were staged and not yet committed, oldest first."""
    return _manifests(storage, _folder("staged", run_id))


def read_batch(storage: Storage, name: str) -> list[ShardFile]:
    """The files of a staged or committed batch.

    Raises:
        DamagedDataError: not what ``stage_batch`` writes.
    """
    try:
        files = [ShardFile(**entry) for entry in json.loads(storage.read(name))]
    except (ValueError, TypeError, RecursionError) as error:
        raise DamagedDataError(
            f"{storage.locate(name)} is not a list of files", "restore the file from a copy."
        ) from error
    for file in files:
        inside(f"{file.table}/{file.path}", name)
    return files


def file_as_committed(storage: Storage, run_id: str, staged: str) -> None:
    """The batch is in every table: keep what it consisted of."""
    committed = f"{_folder('committed', run_id)}/{PurePosixPath(staged).name}"
    if storage.missing([committed]):
        storage.move(staged, committed)
    else:  # the tables have what was named first
        storage.remove(staged)


def committed_files(storage: Storage, run_id: str) -> set[str]:
    """Paths below the lake of all files that were ever committed for a run.

    One that no table names any more was replaced or removed; who reads an older version of the
    table still needs it.
    """
    return {
        f"{file.table}/{file.path}"
        for name in _manifests(storage, _folder("committed", run_id))
        for file in read_batch(storage, name)
    }


def read_digests(storage: Storage, run_id: str | None = None) -> dict[str, str]:
    """SHA-256, hex, by path below the lake, of the files of all runs or one.

    Files of a lake that an older version wrote have none.
    """
    if run_id is None:
        folders = storage.folders("_tracer/committed")
    else:
        folders = [_folder("committed", run_id)]
    return {
        f"{file.table}/{file.path}": file.sha256
        for folder in folders
        for name in _manifests(storage, folder)
        for file in read_batch(storage, name)
        if file.sha256
    }


def _folder(state: str, run_id: str) -> str:
    return f"_tracer/{state}/{run_id}"


def _manifests(storage: Storage, folder: str) -> list[str]:
    return [name for name in storage.names(folder) if name.endswith(".json")]
