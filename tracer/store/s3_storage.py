"""A lake in a bucket, on any server that speaks S3 and keeps to conditional writes.

Where to find the server and who we are comes from the environment alone, as for every AWS program:
``AWS_ACCESS_KEY_ID``, ``AWS_SECRET_ACCESS_KEY``, ``AWS_REGION``, ``AWS_ENDPOINT_URL`` and, for a
server without TLS, ``AWS_ALLOW_HTTP=true``. Nothing of it is written anywhere.

An upload that breaks off leaves no object. Requests that fail or stall are made again, for three
minutes at most; ``TRACER_S3_TIMEOUT`` is when a single one counts as stalled.
"""

import errno
import hashlib
import os
import posixpath
import re
import tempfile
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import BinaryIO
from uuid import uuid4

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import S3Store

from tracer.errors import InputError, first_line
from tracer.store.s3_lease import Lease
from tracer.store.s3_writes import put_if
from tracer.store.storage import Lock, Storage, WrittenFile, without_secrets

__all__ = ["S3Storage", "request_timeout"]

_URL = re.compile(r"s3://(?P<bucket>[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/(?P<prefix>.*))?")
_MOST_TRIES = 10
_first_process = 0
_RETRY_FOR = timedelta(minutes=3)
_PART = 8 << 20
_PARTS_AT_ONCE = 4  # what an upload holds in memory, times _PART


def request_timeout() -> float:
    """Seconds after which a request to the server is given up and made again.

    Raises:
        InputError: ``TRACER_S3_TIMEOUT`` is no number above 0.
    """
    text = os.environ.get("TRACER_S3_TIMEOUT", "30")
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise InputError(f"TRACER_S3_TIMEOUT is {text!r}", "give it seconds, such as 30.")
    return seconds


def _refuse_after_fork() -> None:
    """The client's threads do not survive a fork: in the child requests would never end."""
    global _first_process  # noqa: PLW0603
    _first_process = _first_process or os.getpid()
    if _first_process != os.getpid():
        raise RuntimeError("S3 was used before this process was forked; start it by spawn")


def _allow_http() -> bool:
    """Whether requests may go unencrypted; AWS itself has no name for it, delta-rs has this."""
    allowed = os.environ.get("AWS_ALLOW_HTTP", "").lower() in {"1", "true", "yes", "on"}
    endpoint = os.environ.get("AWS_ENDPOINT_URL", "")
    if endpoint.startswith("http://") and not allowed:
        raise InputError(
            f"AWS_ENDPOINT_URL is {without_secrets(endpoint)}, without TLS",
            "set AWS_ALLOW_HTTP=true if keys and traces may travel unencrypted.",
        )
    return allowed


class S3Storage(Storage):
    """Objects below a prefix; every method as ``Storage`` says."""

    def __init__(self, url: str) -> None:
        found = _URL.fullmatch(url.rstrip("/"))
        prefix = (found["prefix"] or "") if found else ""
        if not found or any(c in prefix for c in "%[]\\@?#*") or not prefix.isprintable():
            raise InputError(
                f"{without_secrets(url)} cannot be a lake",
                "write s3://bucket/folder; keys come from AWS_ACCESS_KEY_ID and"
                " AWS_SECRET_ACCESS_KEY.",
            )
        if prefix and {"", ".", ".."} & set(prefix.split("/")):
            raise InputError(
                f"{without_secrets(url)} cannot be a lake", "write s3://bucket/folder."
            )
        if os.environ.get("AWS_S3_LOCKING_PROVIDER"):
            raise InputError(
                "AWS_S3_LOCKING_PROVIDER is set",
                "unset it: commits here are conditional writes, which do not see that lock.",
            )
        _refuse_after_fork()
        self._location = url.rstrip("/")
        self._is_proved = False
        self._store = S3Store(
            found["bucket"],
            prefix=prefix or None,
            client_options={
                "timeout": timedelta(seconds=request_timeout()),
                "connect_timeout": timedelta(seconds=10),
                "allow_http": _allow_http(),
            },
            retry_config={"max_retries": _MOST_TRIES, "retry_timeout": _RETRY_FOR},
        )

    @property
    def location(self) -> str:
        """The URL."""
        return self._location

    @property
    def table_options(self) -> dict[str, str]:
        return {"timeout": f"{request_timeout():g}s"}

    def prepare(self) -> None:
        if self._is_proved:
            return
        probe = f"_tracer/probe-{uuid4().hex}"
        if not self.write_new(probe, "1"):
            raise OSError(errno.EIO, "the server refused a new object as one that exists", probe)
        kept = not self.write_new(probe, "2")
        self.remove(probe)
        if not kept:
            raise InputError(
                f"the server of {self.location} replaces objects that it was told not to",
                "it would lose what two writers commit at once; use one that honours If-None-Match"
                " on PUT, such as AWS S3, MinIO or Ceph.",
            )
        self._is_proved = True

    def read(self, name: str) -> bytes:
        with self._told(name):
            return bytes(obstore.get(self._store, name).bytes())

    def write(self, name: str, text: str) -> None:
        with self._told(name):
            obstore.put(self._store, name, text.encode())

    def write_new(self, name: str, text: str) -> bool:
        with self._told(name):
            try:
                put_if(self._store, name, text.encode(), None)
            except AlreadyExistsError:
                return False
        return True

    def write_file(self, name: str, fill: Callable[[BinaryIO], int]) -> WrittenFile:
        # The object is not there before its last byte is, but a server takes no file whose size
        # is not known, and the digest is that of the bytes on disk.
        with tempfile.TemporaryFile(prefix="moe-tracer-") as file:
            num_rows = fill(file)
            file.seek(0)
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            size = file.tell()
            file.seek(0)
            with self._told(name):
                obstore.put(
                    self._store, name, file, chunk_size=_PART, max_concurrency=_PARTS_AT_ONCE
                )
                there = obstore.head(self._store, name)
        if there["size"] != size:
            raise OSError(errno.EIO, f"has {there['size']} bytes of {size}", self.locate(name))
        return WrittenFile(num_rows, size, int(there["last_modified"].timestamp() * 1e3), sha256)

    def names(self, folder: str) -> list[str]:
        with self._told(folder):
            found = obstore.list_with_delimiter(self._store, folder)["objects"]
        return sorted(one["path"] for one in found)

    def folders(self, folder: str) -> list[str]:
        with self._told(folder):
            return sorted(obstore.list_with_delimiter(self._store, folder)["common_prefixes"])

    def missing(self, names: Collection[str]) -> list[str]:
        if not names:
            return []
        # One listing instead of a request for each file.
        folder = posixpath.commonpath([posixpath.dirname(name) for name in names])
        with self._told(folder):
            pages = obstore.list(self._store, folder)
            there = {one["path"] for page in pages for one in page}
        return [name for name in names if name not in there]

    def size(self, name: str) -> int:
        with self._told(name):
            return obstore.head(self._store, name)["size"]

    def is_link(self, name: str) -> bool:
        return False

    def digest(self, name: str) -> str:
        digest = hashlib.sha256()
        with self._told(name):
            for part in obstore.get(self._store, name).stream(min_chunk_size=_PART):
                digest.update(part)
        return digest.hexdigest()

    def move(self, name: str, to: str) -> None:
        with self._told(name):
            obstore.copy(self._store, name, to)
            obstore.delete(self._store, name)

    def remove(self, name: str) -> None:
        with self._told(name):
            obstore.delete(self._store, name)

    def remove_folder(self, folder: str) -> None:
        with self._told(folder):
            for page in obstore.list(self._store, folder):
                obstore.delete(self._store, [one["path"] for one in page])

    @contextmanager
    def locked(self, name: str, run_id: str) -> Iterator[Lock]:
        self.prepare()  # the lake may be a copy of one that was made elsewhere
        with self._told(name):
            lease = Lease.take(self._store, name, run_id)
        try:
            yield lease
        finally:
            lease.give_back()

    def sync_log(self, table: str) -> None:
        """An object that a server acknowledged is durable."""

    @contextmanager
    def _told(self, name: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            told = "no such bucket" if "NoSuchBucket" in str(error) else "is not there"
            raise FileNotFoundError(errno.ENOENT, told, self.locate(name)) from None
        except BaseError as error:
            raise OSError(errno.EIO, _in_short(error), self.locate(name)) from error


def _in_short(error: BaseError) -> str:
    """What the server said, or that it said nothing."""
    text = str(error)
    if "169.254." in text:  # the last place where a program on AWS looks
        return "no keys; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    code, message = (re.search(rf"<{tag}>(.*?)</{tag}>", text) for tag in ("Code", "Message"))
    if code and message:
        return f"the server says {message[1]} ({code[1]})"
    if silent := re.search(r"HTTP error: (.+)", text):
        server = without_secrets(os.environ.get("AWS_ENDPOINT_URL", "AWS"))
        return f"{server} does not answer: {silent[1]}"
    return first_line(error)
