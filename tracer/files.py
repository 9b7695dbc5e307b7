"""Writing a user's output file whole or not at all."""

import contextlib
import os
from pathlib import Path

from tracer.errors import InputError

__all__ = ["write_whole"]


def write_whole(path: Path, content: bytes) -> Path:
    """Write ``content`` under a hidden name beside ``path``, then rename; makes its folder.

    Raises:
        InputError: the file cannot be written; what stood at ``path`` is untouched.
    """
    hidden = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        hidden.write_bytes(content)
        hidden.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            hidden.unlink()
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error
    return path
