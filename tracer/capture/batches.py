"""Finished requests on their way into the lake: gathered, sealed, committed.

A sealed batch is written by every worker that records, each its own layers; it is committed once
all of them say that their files are durable.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tracer.capture.engine import Engine
from tracer.errors import EngineFailedError
from tracer.store.run_writer import RunWriter
from tracer.store.shard import ShardFile

__all__ = ["Batch", "Batches"]


@dataclass(slots=True)
class Batch:
    """Requests that are committed together.

    requests: their rows of `requests`
    finished: fields of ``FinishedRequest`` of those with rows to write
    num_tokens: forwarded tokens of those
    """

    number: int
    requests: list[dict[str, Any]] = field(default_factory=list)
    finished: list[list[Any]] = field(default_factory=list)
    num_tokens: int = 0


@dataclass(slots=True)
class Batches:
    """Sealed batches until they are committed."""

    engine: Engine
    target: RunWriter
    _sealed: dict[int, Batch] = field(default_factory=dict)
    _written: dict[int, list[list[ShardFile]]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        """Whether any batch is not committed yet."""
        return bool(self._sealed)

    def seal(self, batch: Batch) -> Batch:
        """Have the workers write the batch; returns the next, empty one."""
        self.engine.call("tracer_seal", batch.number, batch.finished)
        self._sealed[batch.number] = batch
        return Batch(batch.number + 1)

    def commit(self, *, wait: bool) -> int:
        """Commit the batches that every worker has written; returns the bytes of their files.

        Args:
            wait: first let the workers write everything that was sealed.

        Raises:
            EngineFailedError: a worker did not write a batch though it was waited for.
        """
        for answer in self.engine.call("tracer_collect", wait):
            for number, files in answer["written"] if answer else ():
                self._written.setdefault(number, []).append([ShardFile(**file) for file in files])
            self._correct(answer.get("cached", {}) if answer else {})
        whole = [
            number
            for number, by_worker in sorted(self._written.items())
            if len(by_worker) == self.engine.num_recording
        ]
        num_bytes = 0
        for number in whole:
            shards = [file for files in self._written.pop(number) for file in files]
            num_bytes += self.target.commit(number, shards, self._sealed.pop(number).requests)
        if wait and self._sealed:
            reason = f"batch {min(self._sealed)} was not written by every worker"
            raise EngineFailedError("while running", reason)
        return num_bytes

    def _correct(self, cached: Mapping[str, int]) -> None:
        """Take over how many prompt tokens have no rows, by request, where the worker knows better.

        vLLM tells what a request's first prefill skipped; one that was preempted and scheduled
        again may have skipped more, or run what it skipped before.
        """
        if not cached:
            return
        for batch in self._sealed.values():
            for row in batch.requests:
                if row["request_id"] in cached:
                    row["cached_prefix_tokens"] = cached[row["request_id"]]
