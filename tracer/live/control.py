"""Commands to a serving process, and its answers: the other end of ``status.py``'s files."""

import secrets
import time
from collections.abc import Callable
from pathlib import Path

from tracer.errors import NoServerError
from tracer.live.status import Control, Counts, read_status, write_control

__all__ = ["command", "current_status", "wait_until_written"]

_POLL_SECONDS = 0.1


def current_status(folder: Path) -> Counts:
    """Status of a worker that is there.

    Raises:
        NoServerError: none ever wrote here, or it ended or hangs.
        InputError: the file cannot be read, or is none of ours.
    """
    counts = read_status(folder)
    if counts is None:
        raise NoServerError(
            f"no server records here: {folder} has no status",
            "start `vllm serve` with the same TRACER_LIVE, or name its folder with --control.",
        )
    if not counts.is_current:
        seconds = time.time() - counts.updated_at
        last = f"; its last error: {counts.last_error}" if counts.last_error else ""
        raise NoServerError(
            f"the server of {folder} is gone or hangs: process {counts.pid} on {counts.host} last"
            f" wrote its status {seconds:.0f} s ago{last}",
            "start `vllm serve` again; what it had committed is in the lake.",
        )
    return counts


def command(
    folder: Path, *, recording: bool, rate: float | None = None, timeout: float = 10.0
) -> Counts:
    """Have new requests recorded or not, and wait until the worker does so.

    Args:
        folder: of status and commands.
        recording: what is wanted.
        rate: share of requests; None: as configured.
        timeout: seconds to wait.

    Returns:
        The status that answers.

    Raises:
        NoServerError: no worker is there, it does not obey in time, or it cannot record.
        InputError: the command cannot be written.
    """
    current_status(folder)
    wanted = Control(secrets.token_hex(8), recording, rate)
    write_control(folder, wanted)
    counts = _wait(
        folder,
        lambda counts: counts.control_id == wanted.control_id,
        timeout,
        "has not obeyed yet; the command stands until another one is given",
    )
    if recording and not counts.recording:
        raise NoServerError(
            f"the server of {folder} cannot record: {counts.last_error or 'it does not say why'}",
            "its log says more; it serves on.",
        )
    return counts


def wait_until_written(folder: Path, timeout: float) -> Counts:
    """Wait until every chosen request is in the lake or dropped.

    Raises:
        NoServerError: it takes longer than ``timeout`` seconds, or the worker ended.
    """
    return _wait(folder, lambda counts: not counts.pending, timeout, "still has requests to write")


def _wait(folder: Path, answers: Callable[[Counts], bool], timeout: float, what: str) -> Counts:
    until = time.monotonic() + timeout
    while True:
        counts = current_status(folder)
        if answers(counts):
            return counts
        if time.monotonic() > until:
            last = f"; its last error: {counts.last_error}" if counts.last_error else ""
            raise NoServerError(
                f"after {timeout:g} s the server of {folder} {what}{last}",
                "see `tracer live status`, or wait longer.",
            )
        time.sleep(_POLL_SECONDS)
