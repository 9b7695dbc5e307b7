"""Where lakes are, and where one could be."""

import re
from pathlib import Path

from tracer.errors import InputError
from tracer.store.local_storage import LocalStorage
from tracer.store.storage import Storage

__all__ = ["is_lake", "open_storage"]

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):/")


def is_lake(storage: Storage) -> bool:
    """Whether a lake is there: its `runs` table is made last."""
    return any(name.endswith(".json") for name in storage.names("runs/_delta_log"))


def open_storage(path: Path | str) -> Storage:
    """The files at a folder of this machine or an ``s3://`` URL, whatever is there.

    Raises:
        InputError: another kind of URL, or characters that delta-rs does not find again.
    """
    scheme = _SCHEME.match(str(path))
    if scheme and scheme[1].lower() == "s3":
        from tracer.store.s3_storage import S3Storage  # brings a client for S3 along

        # A ``Path`` of a URL has lost a slash.
        return S3Storage(re.sub(r"^[Ss]3:/+", "s3://", str(path)))
    if scheme:
        raise InputError(
            f"{path} is neither a folder nor an s3:// URL",
            "other stores are reached through their S3 interface: set AWS_ENDPOINT_URL.",
        )
    root = Path(path).absolute()
    bad = {c for c in str(root) if c in "%[]\\" or not c.isprintable()}
    if bad:
        raise InputError(
            f"{path} cannot be a lake: its full path contains {' '.join(map(repr, sorted(bad)))}",
            "use a folder without '%', '[', ']', backslashes and control characters.",
        )
    return LocalStorage(root)
