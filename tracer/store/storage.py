"""Where a lake's files are: what the store asks of a folder or of a bucket.

A file's *name* is its path below the lake, ``routing/<run_id>/000000.parquet``. Its *location* is
what other libraries open it by: an absolute path, or an ``s3://`` URL.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, BinaryIO, Protocol

__all__ = ["Lock", "Storage", "WrittenFile", "without_secrets"]


def without_secrets(url: str) -> str:
    """A URL that may be printed: without a user, a key or a query that somebody wrote into it."""
    return re.sub(r"//.*@", "//***@", url).split("?")[0]


@dataclass(frozen=True, slots=True)
class WrittenFile:
    """A file that is there for good.

    num_rows: as whoever filled it says; size: bytes; modified_ms: since 1970; sha256: hex
    """

    num_rows: int
    size: int
    modified_ms: int
    sha256: str


class Lock(Protocol):
    """A lock that is held."""

    def check(self) -> None:
        """See that it still is.

        Raises:
            LakeBusyError: this process was away for so long that another one has it now.
        """
        ...


class Storage(ABC):
    """The files of one lake.

    Methods raise ``OSError`` where the disk or the server refuses, ``FileNotFoundError`` among it.
    What is written is there whole or not at all, and durable when the call returns.
    """

    @property
    @abstractmethod
    def location(self) -> str:
        """Of the lake."""

    @property
    def table_options(self) -> dict[str, str] | None:
        """What delta-rs needs to know beside the location of a table."""
        return None

    @property
    def is_remote(self) -> bool:
        """Whether a call that failed may have been done: its answer can be lost."""
        return self.table_options is not None

    def locate(self, name: str) -> str:
        """Location of a file or folder."""
        return f"{self.location}/{name}"

    def name_of(self, location: str) -> str:
        """Name of a file below the lake."""
        return location.removeprefix(f"{self.location}/")

    @abstractmethod
    def prepare(self) -> None:
        """Make the place, and see that it keeps what concurrent writers rely on."""

    @abstractmethod
    def read(self, name: str) -> bytes:
        """All of a small file."""

    @abstractmethod
    def write(self, name: str, text: str) -> None:
        """Write a small file, replacing what is there."""

    @abstractmethod
    def write_new(self, name: str, text: str) -> bool:
        """Write a small file unless there is one, and say whether this call did.

        The text must be unlike all that others may write there.
        """

    @abstractmethod
    def write_file(self, name: str, fill: Callable[[BinaryIO], int]) -> WrittenFile:
        """Write a file of any size, replacing what is there.

        ``fill`` writes the content and says its number of rows.
        """

    @abstractmethod
    def names(self, folder: str) -> list[str]:
        """Names of the files in a folder, not of those further below; sorted. No folder, none."""

    @abstractmethod
    def folders(self, folder: str) -> list[str]:
        """Names of the folders in a folder, sorted."""

    def has_folder(self, folder: str) -> bool:
        """Whether there is a folder; in a bucket, one with files of its own."""
        return bool(self.names(folder))

    @abstractmethod
    def missing(self, names: Collection[str]) -> list[str]:
        """Those that are not there."""

    @abstractmethod
    def size(self, name: str) -> int:
        """Bytes of a file."""

    @abstractmethod
    def is_link(self, name: str) -> bool:
        """Whether a file lies elsewhere."""

    @abstractmethod
    def digest(self, name: str) -> str:
        """SHA-256 of a file's bytes, hex."""

    @abstractmethod
    def move(self, name: str, to: str) -> None:
        """Rename a small file; interrupted, both names may be there."""

    @abstractmethod
    def remove(self, name: str) -> None:
        """Remove a file if it is there."""

    @abstractmethod
    def remove_folder(self, folder: str) -> None:
        """Remove what is in a folder and below, if it is there."""

    @abstractmethod
    def locked(self, name: str, run_id: str) -> AbstractContextManager[Lock]:
        """Hold the lock of this name; it ends with the process.

        Raises:
            LakeBusyError: another process holds it; ``run_id`` says for what.
        """

    @abstractmethod
    def sync_log(self, table: str) -> None:
        """Make a table's newest commit durable; delta-rs does not."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Not to be sent to other processes: send the location."""
        raise TypeError("send the location of a lake, not its storage")
