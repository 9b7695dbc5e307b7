"""Conditional writes to a bucket, made again until the server has answered.

A client does not repeat a conditional request by itself: the first may have been done, and the
second would be refused because of it. Here whoever is refused looks whether it is by its own hand,
so every content must be unlike all others.
"""

import time
from typing import Any

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError
from obstore.store import S3Store

__all__ = ["put_if"]

_TRIES = 5
_PAUSE = 0.2  # seconds before the second try; twice as long before each that follows


def put_if(store: S3Store, name: str, content: bytes, tag: str | None) -> str:
    """Put an object if there is none, or if the one that is there has this tag.

    Returns:
        Its tag.

    Raises:
        AlreadyExistsError: there is one, and there should be none.
        PreconditionError: there is another one, or FileNotFoundError: none any more.
        BaseError: the server refuses for another reason, or gave no answer to any try.
    """
    mode: Any = "create" if tag is None else {"e_tag": tag}
    pause = _PAUSE
    for attempt in range(_TRIES):
        try:
            return str(obstore.put(store, name, content, mode=mode)["e_tag"])
        except (AlreadyExistsError, PreconditionError):
            there = obstore.get(store, name)
            if bytes(there.bytes()) != content:
                raise
            return str(there.meta["e_tag"])
        except BaseError:
            if attempt == _TRIES - 1:
                raise
        time.sleep(pause)
        pause *= 2
    raise AssertionError  # the last try returns or raises
