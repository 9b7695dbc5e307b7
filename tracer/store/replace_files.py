"""One Delta commit that takes files out of a table, and may put others in their place.

delta-rs appends files that we wrote, and replaces rows by rewriting them itself; it has no call
that replaces some files by others of ours. So this one commit is written here, as the protocol
says: a JSON file of the next version's number that must not exist yet. Who finds it taken looks at
the table again. Source: github.com/delta-io/delta, PROTOCOL.md, "Delta Log Entries".
"""

import json
import time
from collections.abc import Sequence
from typing import Any
from uuid import uuid4

from deltalake.exceptions import CommitFailedError

from tracer.store.delta_tables import CHECKPOINT_EVERY, COMMIT_TRIES, named_files, open_table
from tracer.store.storage import Storage

__all__ = ["replace_files"]

_READER_VERSION, _WRITER_VERSION = 1, 2  # what this commit complies with


def replace_files(
    storage: Storage,
    table: str,
    operation: str,
    removed: Sequence[str],
    added: Sequence[dict[str, Any]] = (),
) -> bool:
    """Take files out of a table, and put ``added`` in, in one commit.

    The removed files stay on disk for those who read an older version.

    Args:
        storage: of the lake.
        table: which.
        operation: what the table's history calls it: OPTIMIZE where the rows stay, else DELETE.
        removed: paths as the table's log has them.
        added: path, size, modificationTime in milliseconds and stats as a JSON text, of each.

    Returns:
        False, and nothing is done, if the table does not have every removed file any more.

    Raises:
        CommitFailedError: others kept committing in between, or the table asks for more than this.
    """
    for _ in range(COMMIT_TRIES):
        delta = open_table(storage, table)
        protocol = delta.protocol()
        if (
            protocol.min_reader_version > _READER_VERSION
            or protocol.min_writer_version > _WRITER_VERSION
        ):
            raise CommitFailedError(f"table {table} was given features of newer Delta tools")
        sizes = {file.path: file.size for file in named_files(delta)}
        if any(path not in sizes for path in removed):
            return False
        version = delta.version() + 1
        lines = _lines(operation, {path: sizes[path] for path in removed}, added)
        if storage.write_new(f"{table}/_delta_log/{version:020d}.json", lines):
            if version % CHECKPOINT_EVERY == 0:
                open_table(storage, table).create_checkpoint()
            return True
    raise CommitFailedError(f"others kept committing to {table}")


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
                "txnId": str(uuid4()),  # tells this commit from every other
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
