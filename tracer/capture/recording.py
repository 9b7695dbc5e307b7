"""Feeds prompts through a started engine and commits their requests batch by batch.

The engine runs continuously; finished requests gather until they make a good shard, are sealed
(the worker writes them while the engine goes on), and are committed once every worker's files
are durable. Requests that were aborted keep no rows; they enter `requests` with the last batch, so
that a capture that is interrupted before tries them again when it resumes.
"""

import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from tracer.capture.batches import Batch, Batches
from tracer.capture.engine import Engine
from tracer.capture.manifest import CaptureRequest
from tracer.capture.plugin import CONFIG_KEY
from tracer.capture.prompts import Prompt
from tracer.capture.request_rows import aborted_row, finished_row, skipped_row, was_cut_short
from tracer.store.run_writer import SHARD_CHOICES, RunWriter

__all__ = ["SEAL_SECONDS", "CaptureSummary", "Progress", "Recording", "seal_is_due"]

# Seal at least this often, so that a crash of a slow engine costs little.
SEAL_SECONDS = 60.0
# Ask the workers this often whether sealed batches are written.
_POLL_SECONDS = 1.0


def seal_is_due(num_choices: int, seconds: float) -> bool:
    """Whether to seal a batch of so many choices, that many seconds after the one before it."""
    return num_choices >= SHARD_CHOICES or seconds > SEAL_SECONDS


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

    share: which one this call captured, None for all; run_status: complete, or running while
        other shares are

    num_requests: finished ones with routing; num_uncaptured: finished, recording switched off
    num_aborted: given up by the engine; num_skipped: too long to be run
    num_rows: rows of `routing`; resumed_requests: committed by an earlier call
    bytes_written: of all tables; seconds: without loading the model
    """

    run_id: str
    lake: str
    num_requests: int = 0
    num_uncaptured: int = 0
    num_aborted: int = 0
    num_skipped: int = 0
    resumed_requests: int = 0
    num_prompt_tokens: int = 0
    num_generated_tokens: int = 0
    num_rows: int = 0
    bytes_written: int = 0
    seconds: float = 0.0
    tokens_per_s: float = 0.0
    share: str | None = None
    run_status: str = "running"

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


@dataclass(slots=True)
class Recording:
    """One pass over the prompts a run still lacks.

    lora: ``vllm.lora.request.LoRARequest`` that every request runs with, if any
    """

    request: CaptureRequest
    engine: Engine
    target: RunWriter
    row: Mapping[str, Any]
    progress: Progress
    summary: CaptureSummary
    lora: Any | None = None
    _prompts: dict[str, Prompt] = field(default_factory=dict)
    _engine_ids: dict[str, str] = field(default_factory=dict)
    _aborted: list[dict[str, Any]] = field(default_factory=list)
    _given_up: list[str] = field(default_factory=list)

    def run(self, prompts: Sequence[Prompt], skipped: Sequence[Prompt]) -> None:
        """Record all prompts and commit them, with the rows of the skipped ones.

        Fills the summary's ``bytes_written``, ``seconds`` and ``tokens_per_s``.
        """
        began = time.perf_counter()
        self.engine.call(
            "tracer_begin",
            self.target.lake.location,
            self.target.run_id,
            secrets.token_hex(3),
            self.target.next_batch == 0,
        )
        tokens = self._record(prompts, skipped)
        self.engine.call("tracer_end")
        self.summary.seconds = time.perf_counter() - began
        self.summary.tokens_per_s = tokens / self.summary.seconds

    def _record(self, prompts: Sequence[Prompt], skipped: Sequence[Prompt]) -> int:
        """Feed the prompts, seal and commit batches; returns tokens forwarded."""
        waiting = list(reversed(prompts))
        window = 4 * self.engine.config.scheduler_config.max_num_seqs
        per_token = len(self.row["moe_layers"]) * self._values_per_layer()
        batches = Batches(self.engine, self.target)
        batch = Batch(self.target.next_batch)
        store_text = self.request.store_text
        batch.requests = [skipped_row(prompt, store_text=store_text) for prompt in skipped]
        total, sealed_at, polled_at = 0, time.monotonic(), time.monotonic()
        while waiting or self._prompts:
            while waiting and len(self._prompts) < window:
                self._add(waiting.pop())
            for output in self.engine.step():
                tokens = self._take(batch, output)
                total += tokens
                self.progress.advance(1, tokens)
            self._give_up_lost()
            self._discard()
            gathered = batch.num_tokens * per_token
            if batch.requests and seal_is_due(gathered, time.monotonic() - sealed_at):
                batch, sealed_at = batches.seal(batch), time.monotonic()
            if batches and time.monotonic() - polled_at > _POLL_SECONDS:
                self._commit(batches, wait=False)
                polled_at = time.monotonic()
        batch.requests += self._aborted
        if batch.requests:
            batches.seal(batch)
        self._commit(batches, wait=True)
        return total

    def _values_per_layer(self) -> int:
        """What a token has in a layer, extras included, so that they do not swell a batch."""
        record = self.request.record
        logits = self.row["num_experts"] if record.router_logits else 0
        return int(self.row["top_k"] + record.top_m + logits)

    def _add(self, prompt: Prompt) -> None:
        self._prompts[prompt.request_id] = prompt
        self._engine_ids[prompt.request_id] = self.engine.add(
            prompt.request_id, prompt.token_ids, self._sampling(prompt), self.lora
        )

    def _sampling(self, prompt: Prompt) -> Any:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        seed = self.engine.config.model_config.seed
        stop = list(self.request.stop)
        return SamplingParams(
            temperature=self.request.temperature,
            seed=None if seed is None else seed + prompt.sample_index,
            max_tokens=self.request.max_tokens,
            ignore_eos=self.request.ignore_eos,
            stop=stop,
            detokenize=self.request.store_text or bool(stop),
            output_kind=RequestOutputKind.FINAL_ONLY,
            extra_args=None if prompt.row.capture else {CONFIG_KEY: {"capture": False}},
        )

    def _take(self, batch: Batch, output: Any) -> int:
        """Put a finished output into the batch; returns its forwarded tokens."""
        prompt = self._prompts.pop(output.request_id)
        engine_id = self._engine_ids.pop(output.request_id)
        store_text = self.request.store_text
        if was_cut_short(output):
            self._give_up([engine_id], [aborted_row(prompt, output, store_text=store_text)])
            return 0
        row = finished_row(prompt, output, store_text=store_text)
        batch.requests.append(row)
        token_ids = [*prompt.token_ids, *output.outputs[0].token_ids]
        forwarded = len(token_ids) - 1
        if prompt.row.capture:
            batch.finished.append(
                [
                    engine_id,
                    prompt.request_id,
                    prompt.row.domain,
                    len(prompt.token_ids),
                    token_ids,
                    row["cached_prefix_tokens"],
                ]
            )
            batch.num_tokens += forwarded
        return forwarded

    def _give_up_lost(self) -> None:
        """Give up the requests that vLLM dropped without an answer, as an abort does."""
        lost = self.engine.lost(self._engine_ids)
        prompts = [self._prompts.pop(request_id) for request_id in lost]
        engine_ids = [self._engine_ids.pop(request_id) for request_id in lost]
        store_text = self.request.store_text
        if lost:
            rows = [aborted_row(prompt, None, store_text=store_text) for prompt in prompts]
            self._give_up(engine_ids, rows)
            self.progress.advance(len(lost), 0)

    def _give_up(self, engine_ids: Sequence[str], rows: Sequence[dict[str, Any]]) -> None:
        self._given_up += engine_ids
        self._aborted += rows

    def _discard(self) -> None:
        """Have the workers forget requests, all of a step at once: they look through their log."""
        if self._given_up:
            self.engine.call("tracer_discard", self._given_up)
            self._given_up = []

    def _commit(self, batches: Batches, *, wait: bool) -> None:
        """Commit the batches whose files are all written."""
        if num_bytes := batches.commit(wait=wait):
            self.summary.bytes_written += num_bytes
            self.progress.written(num_bytes)
