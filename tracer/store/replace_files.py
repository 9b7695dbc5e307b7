"""One Delta commit that takes files out of a table, and may put others in their place.

delta-rs appends files that we wrote, and replaces rows by rewriting them itself; it has no call
that replaces some files by others of ours. So this one commit is written here, as the protocol
says: a JSON file of the next version's number that must not exist yet. Who finds it taken looks at
the table again. Source: github.com/delta-io/delta, PROTOCOL.md, "Delta Log Entries".
"""

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError

from tracer.store.delta_tables import CHECKPOINT_EVERY, COMMIT_TRIES, named_files
from tracer.store.durable import sync_folder

__all__ = ["replace_files"]

_READER_VERSION, _WRITER_VERSION = 1, 2  # what this commit complies with


def replace_files(
    folder: Path,
    operation: str,
    removed: Sequence[str],
    added: Sequence[dict[str, Any]] = (),
) -> bool:
    """Take files out of the table in ``folder``, and put ``added`` in, in one commit.

    The removed files stay on disk for those who read an older version.

    Args:
        folder: of the table.
        operation: what the table's history calls it: OPTIMIZE where the rows stay, else DELETE.
        removed: paths as the table's log has them.
        added: path, size, modificationTime in milliseconds and stats as a JSON text, of each.

    Returns:
        False, and nothing is done, if the table does not have every removed file any more.

    Raises:
        CommitFailedError: others kept committing in between, or the table asks for more than this.
    """
    for _ in range(COMMIT_TRIES):
        table = DeltaTable(str(folder))
        protocol = table.protocol()
        if (
            protocol.min_reader_version > _READER_VERSION
            or protocol.min_writer_version > _WRITER_VERSION
        ):
            raise CommitFailedError(f"table {folder.name} was given features of newer Delta tools")
        sizes = {file.path: file.size for file in named_files(table)}
        if any(path not in sizes for path in removed):
            return False
        version = table.version() + 1
        lines = _lines(operation, {path: sizes[path] for path in removed}, added)
        if _put_if_absent(folder / "_delta_log" / f"{version:020d}.json", lines):
            if version % CHECKPOINT_EVERY == 0:
                DeltaTable(str(folder)).create_checkpoint()
            return True
    raise CommitFailedError(f"others kept committing to {folder.name}")


def _lines(operation: str, removed: dict[str, int], added: Sequence[dict[str, Any]]) -> str:
    now = int(time.time() * 1e3)
    # Readers of changes skip what changes no rows.
    changes = operation != "OPTIMIZE"
    actions: list[dict[str, Any]] = [
        {
            "commitInfo": {
                "timestamp": now,
                "operation": operation,
                "operationParameters": {},
                "engineInfo": "moe-tracer",
            }
        }
    ]
    actions += [
        {
            "remove": {
                "path": path,
                "deletionTimestamp": now,
                "dataChange": changes,
                "extendedFileMetadata": True,
                "partitionValues": {},
                "size": size,
            }
        }
        for path, size in removed.items()
    ]
    actions += [{"add": {**file, "partitionValues": {}, "dataChange": changes}} for file in added]
    return "".join(json.dumps(action) + "\n" for action in actions)


def _put_if_absent(path: Path, text: str) -> bool:
    """Write a file whole and durably, unless there is one; returns whether it was written."""
    hidden = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with hidden.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(hidden, path)  # unlike a rename it replaces nothing
    except FileExistsError:
        return False
    finally:
        hidden.unlink()
    sync_folder(path.parent)
    return True
