"""Files that outlive a crash: hidden, synced and renamed, and their folder synced."""

import os
from pathlib import Path

__all__ = ["sync_folder", "write_durably"]


def sync_folder(folder: Path) -> None:
    """Make a rename durable: the name lives in the folder."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_durably(path: Path, text: str) -> None:
    """Write a file, replacing what is there; makes its folder.

    Raises:
        OSError: it cannot be written; what stood there is untouched.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    hidden = path.with_suffix(".tmp")
    with hidden.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    hidden.replace(path)
    sync_folder(path.parent)
