"""Where lakes are, and where one could be."""

import re
from pathlib import Path

from tracer.errors import InputError
from tracer.store.local_storage import LocalStorage
from tracer.store.storage import Storage, without_secrets

__all__ = ["is_lake", "is_url", "open_storage"]

# Of two letters and more; and of stores, also where the slashes were forgotten.
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/|(s3|gs|az|abfs):", re.IGNORECASE)


def is_lake(storage: Storage) -> bool:
    """Whether a lake is there: its `runs` table is made last.

    Raises:
        InputError: the folder or the server cannot be asked.
    """
    try:
        return any(name.endswith(".json") for name in storage.names("runs/_delta_log"))
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"cannot look into {storage.location}: {reason}") from error


def is_url(path: Path | str) -> bool:
    """Whether it is meant as a URL and not as a folder."""
    return _SCHEME.match(str(path)) is not None


def open_storage(path: Path | str) -> Storage:
    """The files at a folder of this machine or an ``s3://`` URL, whatever is there.

    Raises:
        InputError: another kind of URL, or characters that delta-rs does not find again.
    """
    if re.match("s3:/", str(path), re.IGNORECASE):
        from tracer.store.s3_storage import S3Storage  # brings a client for S3 along

        # A ``Path`` of a URL has lost a slash.
        return S3Storage(re.sub(r"^[Ss]3:/+", "s3://", str(path)))
    if is_url(path):
        raise InputError(
            f"{without_secrets(str(path))} is neither a folder nor an s3:// URL",
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
