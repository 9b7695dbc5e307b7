"""Labels the rows of each forward pass from the model runner's own batch.

Which request a row belongs to, its position and its token come from what the runner prepared
for this very step; nothing is counted or inferred, so chunked prefill, preemption and
interleaved decoding need no special case. Positions and tokens are copied on the device from the
tensors the model saw: the host's copies lag under asynchronous scheduling.

Per step: one fill, two small copies, one snapshot; the thread of the engine waits for nothing
unless there is no memory left for its rows.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tracer.capture.buffer import RoutingBuffer
from tracer.capture.drain import Drain, Slot
from tracer.capture.plugin import CONFIG_KEY
from tracer.errors import UnsupportedModelError

__all__ = ["Step", "batch_reader", "check_runner", "on_device", "skipped_tokens", "watch_steps"]


@dataclass(frozen=True, slots=True)
class Step:
    """The rows of one forward pass; they lie request after request.

    request_ids: the engine's own ids; row_counts: rows of each
    slot: the records, in host memory once its copy has arrived
    muted: requests that enter the batch and must not be recorded
    ended: requests that had left the batch before this pass
    skipped: of requests that enter the batch, or come back to it: tokens that the engine takes
        from its prefix cache instead of running them, where there are any
    """

    request_ids: Sequence[str]
    row_counts: Sequence[int]
    slot: Slot
    muted: Sequence[str] = ()
    ended: Sequence[str] = ()
    skipped: Sequence[tuple[str, int]] = ()


def check_runner(runner: Any) -> None:
    """Refuse a model runner whose batch cannot be read; ask again before recording begins.

    Raises:
        UnsupportedModelError: an unknown model runner class, or one that may forward fewer
            tokens than it schedules.
    """
    if not (_is_v2(runner) or hasattr(runner, "input_batch")):
        name = f"{type(runner).__module__}.{type(runner).__name__}"
        raise UnsupportedModelError(
            f"model runner {name} is not supported", "use vLLM's own V1 or V2 model runner."
        )
    if getattr(runner, "adaptive_verification", None) is not None:
        raise UnsupportedModelError(
            "adaptive verification decides on the device how many draft tokens run",
            "leave enable_adaptive_verification out of --speculative-config.",
        )


def _is_v2(runner: Any) -> bool:
    return hasattr(runner, "req_states")


def watch_steps(
    runner: Any, buffer: RoutingBuffer, drain: Drain, receive: Callable[[Step], None]
) -> Callable[[], None]:
    """Hand each real forward pass of ``runner`` to ``receive``, until the answer is called.

    Args:
        runner: vLLM's ``GPUModelRunner`` (V1 or V2) or ``CPUModelRunner``.
        buffer: what the routers write to.
        drain: takes the records off the device.
        receive: called on the engine's thread; must release the slot in the end.
    """
    execute_model = runner.execute_model
    batch_of = batch_reader(runner)
    ended: list[str] = []
    muted: list[str] = []
    skipped: list[tuple[str, int]] = []

    def execute_and_capture(scheduler_output: Any, *args: Any, **kwargs: Any) -> Any:
        if kwargs.get("dummy_run"):
            return execute_model(scheduler_output, *args, **kwargs)
        ended.extend(scheduler_output.finished_req_ids)
        muted.extend(_muted(scheduler_output.scheduled_new_reqs))
        skipped.extend(skipped_tokens(scheduler_output))
        num_tokens = scheduler_output.total_num_scheduled_tokens
        if num_tokens == 0:
            return execute_model(scheduler_output, *args, **kwargs)
        buffer.clear(num_tokens)
        output = execute_model(scheduler_output, *args, **kwargs)
        request_ids, row_counts, positions, token_ids = batch_of(runner)
        rows = sum(row_counts)
        slot = drain.take(buffer.label(on_device(positions)[:rows], on_device(token_ids)[:rows]))
        receive(Step(request_ids, row_counts, slot, tuple(muted), tuple(ended), tuple(skipped)))
        ended.clear()
        muted.clear()
        skipped.clear()
        return output

    def stop() -> None:
        runner.execute_model = execute_model

    runner.execute_model = execute_and_capture
    return stop


def batch_reader(runner: Any) -> Callable[[Any], tuple[list[str], list[int], Any, Any]]:
    """What reads, after a forward pass, its request ids, their rows, positions and token ids."""
    return _batch_v2 if _is_v2(runner) else _batch_v1


def on_device(tensor: Any) -> Any:
    """VLLM pairs some host and device copies in one object."""
    return getattr(tensor, "gpu", tensor)


def _muted(new_requests: Iterable[Any]) -> list[str]:
    """Those whose ``SamplingParams.extra_args`` switch capture off."""
    return [
        request.req_id
        for request in new_requests
        if request.sampling_params is not None
        and (request.sampling_params.extra_args or {}).get(CONFIG_KEY, {}).get("capture") is False
    ]


def skipped_tokens(scheduler_output: Any) -> list[tuple[str, int]]:
    """Tokens counted as computed when a request enters, or comes back after a preemption."""
    new, known = scheduler_output.scheduled_new_reqs, scheduler_output.scheduled_cached_reqs
    skipped = [(request.req_id, request.num_computed_tokens) for request in new]
    if known.resumed_req_ids:
        computed = zip(known.req_ids, known.num_computed_tokens, strict=True)
        skipped += [pair for pair in computed if pair[0] in known.resumed_req_ids]
    return [pair for pair in skipped if pair[1]]


def _batch_v1(runner: Any) -> tuple[list[str], list[int], Any, Any]:
    # Not the scheduler's counts: a drafter on the device may have run fewer tokens.
    batch = runner.input_batch
    row_counts = np.diff(runner.query_start_loc.np[: batch.num_reqs + 1]).tolist()
    return list(batch.req_ids[: batch.num_reqs]), row_counts, runner.positions, runner.input_ids


def _batch_v2(runner: Any) -> tuple[list[str], list[int], Any, Any]:
    """As ``_batch_v1``; this runner needs a GPU (run with 0.26 by benchmarks/gpu/vllm_check.py)."""
    batch = runner.execute_model_state.input_batch
    row_counts = np.diff(batch.query_start_loc_np[: len(batch.req_ids) + 1]).tolist()
    return list(batch.req_ids), row_counts, batch.positions, batch.input_ids
