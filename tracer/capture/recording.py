"""Feeds prompts through a started engine and commits their requests batch by batch.

The engine runs continuously; finished requests gather until they make a good shard, are sealed
(the worker writes them while the engine goes on), and are committed once every worker's files
are durable.
"""

import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from tracer.capture.engine import Engine
from tracer.capture.manifest import CaptureRequest
from tracer.capture.prompts import Prompt
from tracer.store.run_writer import SHARD_CHOICES, RunWriter
from tracer.store.shard import ShardFile

__all__ = ["CaptureSummary", "Progress", "Recording"]

# Seal at least this often, so that a crash of a slow engine costs little.
_SEAL_SECONDS = 60.0
# Finish reasons of requests that vLLM gave up.
_CUT_SHORT = ("abort", "error")
# Ask the workers this often whether sealed batches are written.
_POLL_SECONDS = 1.0


class Progress(Protocol):
    """Where a capture reports to."""

    def note(self, text: str) -> None:
        """Say which stage begins."""

    def begin(self, total: int, done: int) -> None:
        """Requests in all, and those an earlier attempt committed."""

    def advance(self, requests: int, tokens: int) -> None:
        """Requests that finished, and their tokens."""

    def written(self, num_bytes: int) -> None:
        """Bytes that were committed."""


@dataclass(slots=True)
class CaptureSummary:
    """What a capture did. Counts are of the whole run, ``bytes`` and ``seconds`` of this call.

    num_rows: rows of `routing`; resumed_requests: committed by an earlier call
    bytes_written: of all tables; seconds: without loading the model
    """

    run_id: str
    lake: str
    num_requests: int = 0
    num_skipped: int = 0
    resumed_requests: int = 0
    num_prompt_tokens: int = 0
    num_generated_tokens: int = 0
    num_rows: int = 0
    bytes_written: int = 0
    seconds: float = 0.0
    tokens_per_s: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


@dataclass(slots=True)
class _Batch:
    """Finished requests on their way into the lake."""

    number: int
    requests: list[dict[str, Any]] = field(default_factory=list)
    finished: list[list[Any]] = field(default_factory=list)
    num_tokens: int = 0


@dataclass(slots=True)
class Recording:
    """One pass over the prompts a run still lacks."""

    request: CaptureRequest
    engine: Engine
    target: RunWriter
    row: Mapping[str, Any]
    progress: Progress
    summary: CaptureSummary
    _prompts: dict[str, Prompt] = field(default_factory=dict)
    _engine_ids: dict[str, str] = field(default_factory=dict)
    _sealed: dict[int, _Batch] = field(default_factory=dict)

    def run(self, prompts: Sequence[Prompt], skipped: Sequence[Prompt]) -> None:
        """Record all prompts and commit them, with the rows of the skipped ones.

        Fills the summary's ``bytes_written``, ``seconds`` and ``tokens_per_s``.
        """
        began = time.perf_counter()
        self.engine.call(
            "tracer_begin",
            str(self.target.lake.path),
            self.target.run_id,
            self.request.weight_precision,
            secrets.token_hex(3),
        )
        tokens = self._record(prompts, skipped)
        self.engine.call("tracer_end")
        self.summary.seconds = time.perf_counter() - began
        self.summary.tokens_per_s = tokens / self.summary.seconds

    def _record(self, prompts: Sequence[Prompt], skipped: Sequence[Prompt]) -> int:
        """Feed the prompts, seal and commit batches; returns tokens forwarded."""
        params = self._sampling()
        waiting = list(reversed(prompts))
        window = 4 * self.engine.config.scheduler_config.max_num_seqs
        per_token = len(self.row["moe_layers"]) * self.row["top_k"]
        batch = _Batch(self.target.next_batch)
        batch.requests = [self._skipped_row(prompt) for prompt in skipped]
        total, sealed_at, polled_at = 0, time.monotonic(), time.monotonic()
        while waiting or self._prompts:
            while waiting and len(self._prompts) < window:
                prompt = waiting.pop()
                self._prompts[prompt.request_id] = prompt
                self._engine_ids[prompt.request_id] = self.engine.add(
                    prompt.request_id, prompt.token_ids, params
                )
            for output in self.engine.step():
                tokens = self._take(batch, output)
                total += tokens
                self.progress.advance(1, tokens)
            full = batch.num_tokens * per_token >= SHARD_CHOICES
            late = time.monotonic() - sealed_at > _SEAL_SECONDS
            if batch.finished and (full or late):
                batch, sealed_at = self._seal(batch), time.monotonic()
            if self._sealed and time.monotonic() - polled_at > _POLL_SECONDS:
                self._commit(wait=False)
                polled_at = time.monotonic()
        if batch.requests:
            self._seal(batch)
        self._commit(wait=True)
        return total

    def _sampling(self) -> Any:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        return SamplingParams(
            temperature=self.request.temperature,
            seed=self.engine.config.model_config.seed,
            max_tokens=self.request.max_tokens,
            ignore_eos=self.request.ignore_eos,
            detokenize=self.request.store_text,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )

    def _take(self, batch: _Batch, output: Any) -> int:
        """Put a finished output into the batch; returns its forwarded tokens."""
        prompt = self._prompts.pop(output.request_id)
        completion = output.outputs[0]
        generated = list(completion.token_ids)
        token_ids = [*prompt.token_ids, *generated]
        cached = output.num_cached_tokens or 0
        domain = prompt.row.domain
        batch.finished.append(
            [
                self._engine_ids.pop(output.request_id),
                prompt.request_id,
                domain,
                len(prompt.token_ids),
                token_ids,
                cached,
            ]
        )
        batch.requests.append(
            {
                **self._request_row(prompt),
                "status": "aborted" if completion.finish_reason in _CUT_SHORT else "complete",
                "num_generated_tokens": len(generated),
                "cached_prefix_tokens": cached,
                "finish_reason": completion.finish_reason,
                "output_text": completion.text if self.request.store_text else None,
            }
        )
        forwarded = len(token_ids) - 1
        batch.num_tokens += forwarded
        return forwarded

    def _request_row(self, prompt: Prompt) -> dict[str, Any]:
        labels = dict(prompt.row.labels)
        if prompt.truncated_from is not None:
            labels["truncated_from"] = str(prompt.truncated_from)
        return {
            "request_id": prompt.request_id,
            "sample_index": 0,
            "row_id": prompt.row.row_id,
            "domain": prompt.row.domain,
            "labels": labels,
            "num_prompt_tokens": len(prompt.token_ids),
            "prompt_digest": prompt.digest,
            "prompt_text": prompt.text if self.request.store_text else None,
        }

    def _skipped_row(self, prompt: Prompt) -> dict[str, Any]:
        return {
            **self._request_row(prompt),
            "status": "skipped",
            "num_generated_tokens": 0,
            "cached_prefix_tokens": 0,
            "finish_reason": "too_long",
            "output_text": None,
        }

    def _seal(self, batch: _Batch) -> _Batch:
        """Have the workers write the batch; returns the next, empty one."""
        self.engine.call("tracer_seal", batch.number, batch.finished)
        self._sealed[batch.number] = batch
        return _Batch(batch.number + 1)

    def _commit(self, *, wait: bool) -> None:
        """Commit the batches whose files are all written."""
        written: dict[int, list[ShardFile]] = {}
        for answer in self.engine.call("tracer_collect", wait):
            for number, files in answer["written"] if answer else ():
                written.setdefault(number, []).extend(ShardFile(**file) for file in files)
        for number, files in sorted(written.items()):
            batch = self._sealed.pop(number)
            num_bytes = self.target.commit(number, files, batch.requests)
            self.summary.bytes_written += num_bytes
            self.progress.written(num_bytes)
