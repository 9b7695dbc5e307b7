"""Shares: one run written by several processes at once, each its own part of the requests.

A dataset that is handed to n processes is split by request number: share i of n has the requests
i, i + n, i + 2n, ... of the whole. All of them write one run. What keeps them apart is this:

    batches   share i numbers its batches from i * 1,000,000 on, so no two have one number,
              and every name that holds a number belongs to one share
    locks     a share holds a lock of its own; the run's lock it holds only while it begins and
              while it ends, for which the others wait
    split     _tracer/shares/<run_id>.json says into how many shares the run was split. While it is
              there, whoever wants the run for itself (one process, `tracer delete`, a repair)
              must get the lock of every share, too; it goes when the run is complete
"""

import json
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TypeVar

from tracer.errors import DamagedDataError, InputError, LakeBusyError
from tracer.store.storage import Lock, Storage

__all__ = [
    "BATCHES_OF_A_SHARE",
    "MOST_SHARES",
    "Share",
    "check_split",
    "forget_split",
    "holding_run",
    "holding_share",
    "in_turn",
    "note_split",
    "share_of",
    "split_of",
]

# A batch is sealed once a minute at most often where it is not full, so this is years.
BATCHES_OF_A_SHARE = 1_000_000
MOST_SHARES = 100_000
# How long a share waits for the run's lock, which others hold for some commits.
_PATIENCE = 120.0
_LOOK_EVERY = 0.2
_NUMBERED = re.compile(r"\.?(?P<number>\d{6,})[-.]")

_Item = TypeVar("_Item")


@dataclass(frozen=True, slots=True)
class Share:
    """Part ``index`` of ``count``, counted from 0."""

    index: int
    count: int

    @classmethod
    def parse(cls, text: str) -> "Share":
        """From ``i/n``, as in ``0/4`` to ``3/4``.

        Raises:
            InputError: something else, or no such share.
        """
        found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text, re.ASCII)
        if found is None:
            raise InputError(f"{text!r} names no share", "write it as I/N, such as 0/4.")
        index, count = map(int, found.groups())
        if not 1 <= count <= MOST_SHARES:
            raise InputError(
                f"{text!r} names no share: a run has 1 to {MOST_SHARES:,} of them",
                "write it as I/N, such as 0/4.",
            )
        if index >= count:
            raise InputError(
                f"there is no share {text}: shares count from 0, the last one is"
                f" {count - 1}/{count}",
                f"use 0/{count} to {count - 1}/{count}; in a Slurm array, --array=0-{count - 1}.",
            )
        return cls(index, count)

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def take(self, items: Sequence[_Item]) -> Sequence[_Item]:
        """Those of the share: every ``count``-th from ``index`` on."""
        return items[self.index :: self.count]


def share_of(name: str) -> int:
    """Index of the share that a file of a batch belongs to; 0 of one without a batch number."""
    found = _NUMBERED.match(PurePosixPath(name).name)
    return int(found["number"]) // BATCHES_OF_A_SHARE if found else 0


def split_of(storage: Storage, run_id: str) -> int | None:
    """How many shares a run was split into; None of one that was not, or that is complete.

    Raises:
        DamagedDataError: the note is not what ``note_split`` writes.
    """
    name = _note(run_id)
    if name not in storage.names("_tracer/shares"):
        return None
    try:
        count = json.loads(storage.read(name))["shares"]
    except FileNotFoundError:  # the last share has finished in between
        return None
    except (ValueError, TypeError, KeyError, RecursionError):
        count = None
    if type(count) is not int or not 1 <= count <= MOST_SHARES:
        raise DamagedDataError(
            f"{storage.locate(name)} does not say how many shares the run has",
            'write {"shares": N} into it, with the N that the run was started with.',
        )
    return count


def note_split(storage: Storage, run_id: str, count: int) -> None:
    """Say, durably, that the run is written in so many shares. The run's lock is held.

    Raises:
        InputError: it is written in another number of them.
    """
    check_split(storage, run_id, count)
    if split_of(storage, run_id) is None:
        storage.write(_note(run_id), json.dumps({"shares": count}))


def check_split(storage: Storage, run_id: str, count: int) -> None:
    """See that the run is not split into another number of shares.

    Raises:
        InputError: it is.
    """
    split = split_of(storage, run_id)
    if split not in (None, count):
        raise InputError(
            f"run {run_id!r} is split into {split} shares, not {count}",
            f"go on with {split} of them; or give the command without a split, and it finishes"
            " what they left, once none of them runs.",
        )


def forget_split(storage: Storage, run_id: str) -> None:
    """The run belongs to one writer again. The run's lock is held."""
    storage.remove(_note(run_id))


@contextmanager
def holding_run(storage: Storage, run_id: str) -> Iterator[Lock]:
    """Hold the run's lock and those of all its shares.

    Raises:
        LakeBusyError: another process holds one of them.
    """
    with storage.locked(_run_lock(run_id), run_id) as lock, ExitStack() as shares:
        for index in range(split_of(storage, run_id) or 0):
            shares.enter_context(storage.locked(_share_lock(run_id, index), run_id))
        yield lock


@contextmanager
def in_turn(storage: Storage, run_id: str) -> Iterator[Lock]:
    """Hold the run's lock alone, for the moments in which a share begins or ends.

    Raises:
        LakeBusyError: whoever holds it keeps it: no share, then, but one that wants all.
    """
    until = time.monotonic() + _PATIENCE
    with ExitStack() as stack:
        while True:
            try:
                lock = stack.enter_context(storage.locked(_run_lock(run_id), run_id))
            except LakeBusyError:
                if time.monotonic() > until:
                    raise
                time.sleep(_LOOK_EVERY)
            else:
                break
        yield lock


@contextmanager
def holding_share(storage: Storage, run_id: str, share: Share) -> Iterator[Lock]:
    """Hold the lock of one share.

    Raises:
        LakeBusyError: another process writes this share.
    """
    with ExitStack() as stack:
        try:
            lock = stack.enter_context(storage.locked(_share_lock(run_id, share.index), run_id))
        except LakeBusyError:
            raise LakeBusyError(run_id, str(share)) from None
        yield lock


def _note(run_id: str) -> str:
    return f"_tracer/shares/{run_id}.json"


def _run_lock(run_id: str) -> str:
    return f"_tracer/locks/{run_id}.lock"


def _share_lock(run_id: str, index: int) -> str:
    return f"_tracer/locks/{run_id}.shares/{index}.lock"
