"""What a serving process says of its capture, and what it is told: two small files in one folder.

    <control>/status.json    written whole by the worker, about once a second
    <control>/control.json   written whole by `tracer live start|stop`, read by the worker

No port and no signal: who may write the folder controls the capture, so it is made for its owner
alone. A worker obeys no file that anyone else could have written.
"""

import json
import os
import socket
import stat
import time
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from tracer.errors import InputError, first_line
from tracer.files import write_whole

__all__ = [
    "CONTROL_FILE",
    "STALE_SECONDS",
    "STATUS_FILE",
    "Control",
    "ControlReader",
    "Counts",
    "read_status",
    "write_control",
    "write_status",
]

CONTROL_FILE = "control.json"
STATUS_FILE = "status.json"
# A worker that has not written for so long is not there, or hangs.
STALE_SECONDS = 10.0
_MOST_BYTES = 256 * 1024
_MOST_REASONS = 64
_MOST_ID = 64


def _pid_space() -> str:
    try:
        return os.readlink("/proc/self/ns/pid")  # noqa: PTH115 - no file is there
    except OSError:
        return ""


@dataclass(slots=True)
class Counts:
    """One worker's capture since its server started. Counts never fall; sizes are of now.

    seen: requests the engine began; chosen: of them, to be recorded
    left_out: reason -> requests that were not chosen (rate, declined, not_asked, stopped, error)
    recorded: requests that are in the lake
    dropped: reason -> chosen requests that are not (queue_full, disk_full, aborted, error, ...)
    refused_values: reason -> labels and other values of requests that were not taken
    tokens: of recorded requests; bytes_written: in the lake
    queue_bytes, queue_limit_bytes: rows that wait to be written, and how many may
    recording: whether new requests are recorded; rate: that holds now
    control_id: of the last command that was obeyed; config: its public part
    last_error: of writing or reading a command; started_at, updated_at: UNIX time
    pid_space: in which ``pid`` means something: containers of a pod share a host name, not this
    """

    seen: int = 0
    chosen: int = 0
    left_out: dict[str, int] = field(default_factory=dict)
    recorded: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    refused_values: dict[str, int] = field(default_factory=dict)
    tokens: int = 0
    bytes_written: int = 0
    queue_bytes: int = 0
    queue_limit_bytes: int = 0
    recording: bool = True
    rate: float = 1.0
    run_id: str | None = None
    control_id: str | None = None
    last_error: str | None = None
    started_at: float = field(default_factory=time.time)
    updated_at: float = 0.0
    host: str = field(default_factory=socket.gethostname)
    pid: int = field(default_factory=os.getpid)
    pid_space: str = field(default_factory=_pid_space)
    config: dict[str, Any] = field(default_factory=dict)

    def leave_out(self, reason: str) -> None:
        """Count a request that was not chosen."""
        self.left_out[reason] = self.left_out.get(reason, 0) + 1

    def drop(self, reason: str, requests: int = 1) -> None:
        """Count chosen requests that will not be in the lake."""
        if requests:
            self.dropped[reason] = self.dropped.get(reason, 0) + requests

    def refuse_value(self, reason: str) -> None:
        """Count a value of a request that was not taken."""
        self.refused_values[reason] = self.refused_values.get(reason, 0) + 1

    def to_dict(self) -> dict[str, Any]:
        """As plain values; may be called while another thread counts."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        return {
            name: dict(value) if isinstance(value, dict) else value
            for name, value in values.items()
        }

    @classmethod
    def from_dict(cls, raw: Any) -> "Counts":
        """What another process wrote, perhaps of another version: what is not known is left out.

        Raises:
            ValueError: a value of another kind.
        """
        if not isinstance(raw, dict):
            raise ValueError("not an object")  # noqa: TRY004 - one kind of error for a bad file
        known: dict[str, Any] = {}
        sample = asdict(cls())
        for name in (one.name for one in fields(cls)):
            if name not in raw:
                continue
            value = raw[name]
            kinds = _KINDS.get(name, (type(sample[name]),))
            if not isinstance(value, kinds) or isinstance(value, bool) != (kinds == (bool,)):
                raise ValueError(f"{name} is {type(value).__name__}")
            if name in _REASONS and not _are_counts(value):
                raise ValueError(f"{name} does not hold counts")
            known[name] = value
        return cls(**known)

    @property
    def is_current(self) -> bool:
        """Whether its worker is there and answers, as far as can be told from here."""
        if abs(time.time() - self.updated_at) > STALE_SECONDS:
            return False
        if (self.host, self.pid_space) != (socket.gethostname(), _pid_space()):
            return True
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except (PermissionError, OverflowError):
            pass
        return True

    @property
    def pending(self) -> int:
        """Chosen requests that run, or wait to be written."""
        return max(0, self.chosen - self.recorded - sum(self.dropped.values()))


_REASONS = ("left_out", "dropped", "refused_values")
_KINDS: dict[str, tuple[type, ...]] = {
    "rate": (int, float),
    "started_at": (int, float),
    "updated_at": (int, float),
    **dict.fromkeys(("run_id", "control_id", "last_error"), (str, type(None))),
}


def _are_counts(value: Any) -> bool:
    return len(value) <= _MOST_REASONS and all(
        isinstance(count, int) and not isinstance(count, bool) for count in value.values()
    )


@dataclass(frozen=True, slots=True)
class Control:
    """A command. Holds until the next one, over restarts of the server.

    control_id: new with every command; a worker repeats it in its status
    recording: record new requests
    rate: in place of the configured one; None: as configured
    """

    control_id: str
    recording: bool
    rate: float | None = None


def write_status(folder: Path, counts: Counts) -> None:
    """Write a worker's status whole.

    Args:
        folder: of status and commands; made, for the owner alone, if it is not there.
        counts: to write; its ``updated_at`` is set.

    Raises:
        InputError: the folder or the file cannot be written.
    """
    _make(folder)
    counts.updated_at = time.time()
    write_whole(folder / STATUS_FILE, json.dumps(counts.to_dict()).encode())


def read_status(folder: Path) -> Counts | None:
    """What the worker of a server last said; None if none ever did.

    Raises:
        InputError: the file cannot be read, or is none of ours.
    """
    path = folder / STATUS_FILE
    try:
        return Counts.from_dict(json.loads(_bounded(path)))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is no status of a server: {first_line(error)}") from error


def write_control(folder: Path, control: Control) -> None:
    """Give a command.

    Raises:
        InputError: the folder or the file cannot be written.
    """
    _make(folder)
    write_whole(folder / CONTROL_FILE, json.dumps(asdict(control)).encode(), mode=0o600)


class ControlReader:
    """A worker's view of the commands."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / CONTROL_FILE
        self._seen: tuple[int, int, int] | None = None

    def poll(self) -> Control | None:
        """The command, if it is another one than at the last call. One ``stat`` if it is not.

        Raises:
            InputError: a file that is no command, or that others than the owner may write. Told
                once for each file.
        """
        try:
            about = self._path.lstat()
        except OSError:
            return None
        mark = (about.st_mtime_ns, about.st_ino, about.st_size)
        if mark == self._seen:
            return None
        self._seen = mark
        if not stat.S_ISREG(about.st_mode) or about.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise InputError(f"{self._path} is not obeyed: others may write it", "chmod 600 it.")
        if about.st_uid not in (0, os.geteuid()):
            raise InputError(
                f"{self._path} is not obeyed: user {about.st_uid} wrote it, the server is"
                f" {os.geteuid()}",
                "run `tracer live` as the user of the server.",
            )
        try:
            return _control(json.loads(_bounded(self._path, about)))
        except (OSError, ValueError, RecursionError) as error:
            raise InputError(f"{self._path} is no command: {first_line(error)}") from error


def _control(raw: Any) -> Control:
    match raw:
        case {"control_id": str() as name, "recording": bool() as on} if len(name) <= _MOST_ID:
            rate = raw.get("rate")
            if rate is None or (
                isinstance(rate, int | float) and not isinstance(rate, bool) and 0 <= rate <= 1
            ):
                return Control(name, on, None if rate is None else float(rate))
    raise ValueError("not {control_id, recording, rate}")


def _bounded(path: Path, checked: os.stat_result | None = None) -> bytes:
    """All of a regular file, of the one that was checked; never waits, as for a pipe.

    Raises:
        OSError: it cannot be opened.
        ValueError: it is another file, none at all, or too long.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
    with os.fdopen(os.open(path, flags | (os.O_NOFOLLOW if checked else 0)), "rb") as file:
        about = os.fstat(file.fileno())
        if not stat.S_ISREG(about.st_mode):
            raise ValueError("not a file")
        if checked is not None and not os.path.samestat(about, checked):
            raise ValueError("replaced meanwhile")
        raw = file.read(_MOST_BYTES + 1)
    if len(raw) > _MOST_BYTES:
        raise ValueError(f"longer than {_MOST_BYTES} bytes")
    return raw


def _make(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make {folder}: {error.strerror or error}") from error
