"""Labels the rows of each forward pass from the model runner's own batch.

Which request a row belongs to, its position and its token come from what the runner prepared
for this very step; nothing is counted or inferred, so chunked prefill, preemption and
interleaved decoding need no special case. The token ids are read from the device tensor the
model saw: the host copy lags under asynchronous scheduling.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tracer.capture.buffer import RoutingBuffer
from tracer.errors import UnsupportedModelError

__all__ = ["Step", "check_runner", "watch_steps"]


@dataclass(frozen=True, slots=True)
class Step:
    """The rows of one forward pass; they lie request after request.

    request_ids: the engine's own ids; row_counts: rows of each
    positions, token_ids: int32 [n]
    expert_ids: int16 [layers, n, top_k]; gate_weights: float32 [layers, n, top_k]
    """

    request_ids: Sequence[str]
    row_counts: Sequence[int]
    positions: npt.NDArray[np.int32]
    token_ids: npt.NDArray[np.int32]
    expert_ids: npt.NDArray[np.int16]
    gate_weights: npt.NDArray[np.float32]


def check_runner(runner: Any) -> None:
    """Refuse a model runner whose batch cannot be read.

    Raises:
        UnsupportedModelError: an unknown model runner class.
    """
    if not (_is_v2(runner) or hasattr(runner, "input_batch")):
        name = f"{type(runner).__module__}.{type(runner).__name__}"
        raise UnsupportedModelError(
            f"model runner {name} is not supported", "use vLLM's own V1 or V2 model runner."
        )


def _is_v2(runner: Any) -> bool:
    return hasattr(runner, "req_states")


def watch_steps(
    runner: Any, buffer: RoutingBuffer, receive: Callable[[Step], None]
) -> Callable[[], None]:
    """Hand each real forward pass of ``runner`` to ``receive``, until the answer is called."""
    execute_model = runner.execute_model
    batch_of = _batch_v2 if _is_v2(runner) else _batch_v1

    def execute_and_capture(scheduler_output: Any, *args: Any, **kwargs: Any) -> Any:
        num_tokens = scheduler_output.total_num_scheduled_tokens
        if num_tokens == 0 or kwargs.get("dummy_run"):
            return execute_model(scheduler_output, *args, **kwargs)
        buffer.clear(num_tokens)
        output = execute_model(scheduler_output, *args, **kwargs)
        request_ids, row_counts, positions, token_ids = batch_of(runner, scheduler_output)
        rows = sum(row_counts)
        expert_ids, gate_weights = buffer.snapshot(rows)
        receive(
            Step(
                request_ids,
                row_counts,
                _host(positions, rows),
                _host(token_ids, rows),
                expert_ids.numpy(),
                gate_weights.numpy(),
            )
        )
        return output

    def stop() -> None:
        runner.execute_model = execute_model

    runner.execute_model = execute_and_capture
    return stop


def _host(tensor: Any, rows: int) -> npt.NDArray[np.int32]:
    """First rows of a device tensor as an int32 copy on the host."""
    device = getattr(tensor, "gpu", tensor)  # vLLM pairs host and device copies in one object
    array: npt.NDArray[np.int32] = device[:rows].cpu().numpy().astype(np.int32, copy=True)
    return array


def _batch_v1(runner: Any, scheduler_output: Any) -> tuple[list[str], list[int], Any, Any]:
    batch = runner.input_batch
    request_ids = list(batch.req_ids[: batch.num_reqs])
    scheduled = scheduler_output.num_scheduled_tokens
    row_counts = [scheduled[request_id] for request_id in request_ids]
    return request_ids, row_counts, runner.positions, runner.input_ids


def _batch_v2(runner: Any, scheduler_output: Any) -> tuple[list[str], list[int], Any, Any]:
    """As ``_batch_v1``; read from vLLM's source, not yet run (it needs a GPU)."""
    del scheduler_output
    batch = runner.execute_model_state.input_batch
    row_counts = np.diff(batch.query_start_loc_np[: len(batch.req_ids) + 1]).tolist()
    return list(batch.req_ids), row_counts, batch.positions, batch.input_ids
