"""Watching a runner's steps, with a runner stand-in; real runners: tests/engine."""

from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch", reason="needs vLLM: make setup")

from tracer.capture.buffer import RoutingBuffer, record  # noqa: E402
from tracer.capture.steps import watch_steps  # noqa: E402


def test_steps_are_labelled_until_watching_stops():
    """Request b has two rows, a one; after the stop a step costs nothing and tells nobody."""
    buffer = RoutingBuffer.allocate(1, max_tokens=4, top_k=1, device=torch.device("cpu"))

    def execute_model(scheduler_output):
        ids = torch.tensor([[5], [6], [7]])
        record(buffer.expert_ids[0], buffer.gate_weights[0], ids, ids.float())
        return "output"

    runner = SimpleNamespace(
        execute_model=execute_model,
        input_batch=SimpleNamespace(req_ids=["b", "a", None], num_reqs=2),
        positions=torch.tensor([3, 4, 0, 0]),
        input_ids=SimpleNamespace(gpu=torch.tensor([30, 31, 20, 0])),
    )
    scheduled = SimpleNamespace(total_num_scheduled_tokens=3, num_scheduled_tokens={"a": 1, "b": 2})
    seen = []
    stop = watch_steps(runner, buffer, seen.append)
    assert runner.execute_model(scheduled) == "output"
    (step,) = seen
    assert (step.request_ids, step.row_counts) == (["b", "a"], [2, 1])
    assert (step.positions.tolist(), step.token_ids.tolist()) == ([3, 4, 0], [30, 31, 20])
    assert step.expert_ids.tolist() == [[[5], [6], [7]]]

    stop()

    assert runner.execute_model is execute_model
    assert runner.execute_model(scheduled) == "output"
    assert len(seen) == 1
