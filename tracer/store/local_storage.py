"""A lake in a folder of this machine: files are written hidden, synced, renamed."""

import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from tracer.errors import LakeBusyError
from tracer.store.storage import Lock, Storage, WrittenFile

__all__ = ["LocalStorage"]


class LocalStorage(Storage):
    """A folder; every method as ``Storage`` says."""

    def __init__(self, root: Path) -> None:
        self._root = root

    @property
    def location(self) -> str:
        """Absolute path."""
        return str(self._root)

    def prepare(self) -> None:
        self._root.mkdir(parents=True, exist_ok=True)

    def read(self, name: str) -> bytes:
        return (self._root / name).read_bytes()

    def write(self, name: str, text: str) -> None:
        path = self._root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        hidden = path.with_suffix(".tmp")
        _write_synced(hidden, text)
        hidden.replace(path)
        _sync_folder(path.parent)

    def write_new(self, name: str, text: str) -> bool:
        path = self._root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        hidden = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        _write_synced(hidden, text)
        try:
            os.link(hidden, path)  # unlike a rename it replaces nothing
        except FileExistsError:
            return False
        finally:
            hidden.unlink()
        _sync_folder(path.parent)
        return True

    def write_file(self, name: str, fill: Callable[[BinaryIO], int]) -> WrittenFile:
        path = self._root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        hidden = path.with_name(f".{path.stem}.{os.getpid()}.tmp")
        try:
            with hidden.open("wb") as file:
                num_rows = fill(file)
                file.flush()
                os.fsync(file.fileno())
            sha256 = _digest(hidden)  # still in the page cache
            hidden.replace(path)
        except BaseException:
            hidden.unlink(missing_ok=True)
            raise
        _sync_folder(path.parent)
        stat = path.stat()
        return WrittenFile(num_rows, stat.st_size, int(stat.st_mtime * 1e3), sha256)

    def names(self, folder: str) -> list[str]:
        return self._listed(folder, files=True)

    def folders(self, folder: str) -> list[str]:
        return self._listed(folder, files=False)

    def _listed(self, folder: str, *, files: bool) -> list[str]:
        try:
            with os.scandir(self._root / folder) as entries:
                found = sorted(entry.name for entry in entries if entry.is_dir() is not files)
        except FileNotFoundError:
            return []
        except NotADirectoryError:
            if not folder:
                raise
            return []
        return [f"{folder}/{name}" if folder else name for name in found]

    def has_folder(self, folder: str) -> bool:
        return (self._root / folder).is_dir()

    def missing(self, names: Collection[str]) -> list[str]:
        return [name for name in names if not (self._root / name).is_file()]

    def size(self, name: str) -> int:
        return (self._root / name).stat().st_size

    def is_link(self, name: str) -> bool:
        return (self._root / name).is_symlink()

    def digest(self, name: str) -> str:
        return _digest(self._root / name)

    def move(self, name: str, to: str) -> None:
        path = self._root / to
        path.parent.mkdir(parents=True, exist_ok=True)
        (self._root / name).replace(path)

    def remove(self, name: str) -> None:
        (self._root / name).unlink(missing_ok=True)

    def remove_folder(self, folder: str) -> None:
        shutil.rmtree(self._root / folder, ignore_errors=True)

    @contextmanager
    def locked(self, name: str, run_id: str) -> Iterator[Lock]:
        path = self._root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise LakeBusyError(run_id) from None
            yield _HeldFile()

    def sync_log(self, table: str) -> None:
        folder = self._root / table / "_delta_log"
        newest = max(folder.glob("*.json"))
        with newest.open("rb") as file:
            os.fsync(file.fileno())
        _sync_folder(folder)


class _HeldFile:
    """A locked file: the system lets nobody else have it while this process lives."""

    def check(self) -> None:
        """It still is."""


def _write_synced(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """Make a rename durable: the name lives in the folder."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
