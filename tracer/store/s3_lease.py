"""A lock in a bucket: an object that whoever holds it keeps changing.

A server cannot tell that a process died, so a holder renews its lease and a newcomer waits for as
long as a lease lasts to see whether the object changes. No clocks are compared: only the time that
passes in one process counts. Every write is conditional on what was there, so of several that
take over one wins.
"""

import json
import os
import socket
import threading
import time
from uuid import uuid4

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError
from obstore.store import S3Store

from tracer.errors import LakeBusyError
from tracer.store.s3_writes import put_if

__all__ = ["LEASE_SECONDS", "Lease"]

# A run whose writer was killed can be resumed after so long. Long enough for a server to answer
# again that was away for a moment.
LEASE_SECONDS = 30.0
_RENEWALS = 6  # in a lease
_TRIES = 2  # to renew it: an earlier renewal may have arrived though its answer did not
_LOOKS = 20  # in a lease, of who waits for it to end


class Lease:
    """A lease that is held; a thread renews it. ``Lease.take`` makes one."""

    def __init__(
        self, store: S3Store, name: str, run_id: str, *, owner: str, tag: str, began: float
    ) -> None:
        self._store, self._name, self._run_id = store, name, run_id
        self._owner, self._tag, self._beats = owner, tag, 0
        # From when it was asked for: those who watch it count from before the answer, too.
        self._until = began + LEASE_SECONDS
        self._over = threading.Event()
        self._turn = threading.Lock()
        self._thread = threading.Thread(target=self._renew, name=f"lease of {run_id}", daemon=True)
        self._thread.start()

    @classmethod
    def take(cls, store: S3Store, name: str, run_id: str) -> "Lease":
        """Take the lease, if need be after watching it end.

        Raises:
            LakeBusyError: another process holds it.
            BaseError: the server refuses.
        """
        owner = f"{socket.gethostname()} {os.getpid()} {uuid4().hex}"
        content = _content(owner, 0)

        def put(tag: str | None) -> "Lease":
            began = time.monotonic()
            found = put_if(store, name, content, tag)
            return cls(store, name, run_id, owner=owner, tag=found, began=began)

        while True:
            try:
                return put(None)
            except FileNotFoundError:  # given back between two requests
                continue
            except AlreadyExistsError:
                seen = _watch(store, name)
            if seen is None:  # given back meanwhile
                continue
            changed, tag = seen
            if changed:
                raise LakeBusyError(run_id)
            try:
                return put(tag)
            except PreconditionError:  # another one was faster
                raise LakeBusyError(run_id) from None
            except FileNotFoundError:
                continue

    def check(self) -> None:
        """See that the lease is still held.

        Raises:
            LakeBusyError: it could not be renewed in time, or another process took it.
        """
        if not self._over.is_set() and time.monotonic() > self._until:
            self._renew_now()  # this process was held up; perhaps nobody took it
        if self._over.is_set() or time.monotonic() > self._until:
            raise LakeBusyError(self._run_id)

    def give_back(self) -> None:
        """Let the next one have it at once; one that was lost is left to whoever has it."""
        lost = self._over.is_set()
        self._over.set()
        self._thread.join()
        if not lost and time.monotonic() <= self._until:
            try:
                if obstore.head(self._store, self._name)["e_tag"] == self._tag:
                    obstore.delete(self._store, self._name)
            except (BaseError, OSError):
                pass  # it ends by itself

    def _renew(self) -> None:
        while not self._over.wait(LEASE_SECONDS / _RENEWALS):
            self._renew_now()

    def _renew_now(self) -> None:
        """Renew it, if it is still ours: what was never taken has the tag that was put last."""
        with self._turn:
            for _ in range(_TRIES):
                began = time.monotonic()
                self._beats += 1
                content = _content(self._owner, self._beats)
                try:
                    self._tag = put_if(self._store, self._name, content, self._tag)
                except FileNotFoundError:
                    self._over.set()
                    return
                except PreconditionError:
                    if self._is_anothers():
                        self._over.set()
                        return
                    continue
                except (BaseError, OSError):
                    return  # perhaps next time
                self._until = began + LEASE_SECONDS
                return

    def _is_anothers(self) -> bool:
        """Whether somebody else has the lease, or nobody; else an earlier renewal arrived late."""
        try:
            there = obstore.get(self._store, self._name)
            tag, content = str(there.meta["e_tag"]), bytes(there.bytes())
        except FileNotFoundError:
            return True
        except (BaseError, OSError):
            return False  # perhaps next time
        if self._owner.encode() not in content:
            return True
        self._tag = tag
        return False


def _watch(store: S3Store, name: str) -> tuple[bool, str] | None:
    """(whether it changes while a lease lasts, its tag); None if it goes away."""
    try:
        first = str(obstore.head(store, name)["e_tag"])
        end = time.monotonic() + LEASE_SECONDS
        while time.monotonic() < end:
            time.sleep(LEASE_SECONDS / _LOOKS)
            if obstore.head(store, name)["e_tag"] != first:
                return True, first
    except FileNotFoundError:
        return None
    return False, first


def _content(owner: str, beats: int) -> bytes:
    return json.dumps({"owner": owner, "beats": beats}).encode()
