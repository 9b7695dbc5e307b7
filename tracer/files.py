"""Writing a user's output, a file or a folder of files, whole or not at all."""

import contextlib
import os
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path

from tracer.errors import InputError

__all__ = ["check_output", "whole_folder", "write_whole"]


def check_output(
    path: Path, *, force: bool, names: Collection[str] = (), option: str = "--output"
) -> None:
    """See that ``path`` may be written, before any work is done for it.

    Args:
        path: the file or folder to be.
        force: may replace what is there.
        names: of the files of a folder; a folder that holds any other is never replaced.
        option: that named the path, for the hint.

    Raises:
        InputError: something is there that is not to be replaced.
    """
    try:
        if not os.path.lexists(path):
            return
        if not force:
            raise InputError(
                f"{path} exists", f"give another {option}, or replace it with --force."
            )
        if path.is_symlink() or path.is_dir() != bool(names):
            raise InputError(f"{path} is not what this would replace", f"give another {option}.")
        foreign = sorted(entry.name for entry in path.iterdir()) if names else []
        if foreign := [name for name in foreign if name not in names]:
            raise InputError(f"{path} also holds {foreign[0]!r}", f"give another {option}.")
    except OSError as error:
        raise InputError(f"cannot use {path}: {error.strerror or error}") from error


@contextlib.contextmanager
def whole_folder(
    path: Path, *, force: bool, names: Collection[str], option: str = "--output"
) -> Iterator[Path]:
    """Give a hidden folder beside ``path``, which becomes ``path`` if the block ends well.

    Raises:
        InputError: as ``check_output``, or the folder cannot be written; what stood at ``path``
            is untouched.
    """
    check_output(path, force=force, names=names, option=option)
    path = path.absolute()
    hidden, old = (path.with_name(f".{path.name}.{os.getpid()}.{end}") for end in ("tmp", "old"))
    try:
        hidden.mkdir(parents=True)
        yield hidden
        if path.exists():
            path.rename(old)
        try:
            hidden.rename(path)
        except OSError:
            if old.exists():
                old.rename(path)
            raise
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(hidden, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)


def write_whole(path: Path, content: bytes, *, mode: int | None = None) -> Path:
    """Write ``content`` under a hidden name beside ``path``, then rename; makes its folder.

    Args:
        path: the file to be.
        content: all of it.
        mode: permissions of the file; by default those that the umask leaves.

    Raises:
        InputError: the file cannot be written; what stood at ``path`` is untouched.
    """
    hidden = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        hidden.write_bytes(content)
        if mode is not None:
            hidden.chmod(mode)
        hidden.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            hidden.unlink()
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error
    return path
