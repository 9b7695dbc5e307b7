"""Watching a runner's steps, with a runner stand-in; real runners: tests/engine."""

from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs vLLM: make setup")

from tracer.capture.buffer import RoutingBuffer, record  # noqa: E402
from tracer.capture.drain import Drain  # noqa: E402
from tracer.capture.row_format import Field, RowFormat  # noqa: E402
from tracer.capture.steps import check_runner, watch_steps  # noqa: E402
from tracer.errors import UnsupportedModelError  # noqa: E402

FORMAT = RowFormat(
    1,
    (
        Field("gate_weights", torch.float32, 1),
        Field("expert_ids", torch.uint8, 1),
        Field("position", torch.int32, 1, per_layer=False),
        Field("token_id", torch.int32, 1, per_layer=False),
    ),
)


@pytest.fixture
def buffer():
    return RoutingBuffer.allocate(FORMAT, 4, torch.device("cpu"))


@pytest.fixture
def runner(buffer):
    def execute_model(scheduler_output):
        ids = torch.tensor([[5], [6], [7]])
        if scheduler_output.total_num_scheduled_tokens:
            place = FORMAT.place
            record(
                buffer.storage, ids, ids.float(), *place("expert_ids", 0),
                *place("gate_weights", 0), 0,
            )  # fmt: skip
        return "output"

    return SimpleNamespace(
        execute_model=execute_model,
        input_batch=SimpleNamespace(req_ids=["b", "a", None], num_reqs=2),
        query_start_loc=SimpleNamespace(np=np.array([0, 2, 3, 9])),
        positions=torch.tensor([3, 4, 0, 0]),
        input_ids=SimpleNamespace(gpu=torch.tensor([30, 31, 20, 0])),
    )


def scheduled(*, tokens=3, new=(), finished=(), resumed=()):
    return SimpleNamespace(
        total_num_scheduled_tokens=tokens,
        scheduled_new_reqs=new,
        finished_req_ids=set(finished),
        scheduled_cached_reqs=SimpleNamespace(
            req_ids=["a", "b"], num_computed_tokens=[7, 9], resumed_req_ids=set(resumed)
        ),
    )


def new_request(name, extra_args):
    params = SimpleNamespace(extra_args=extra_args)
    return SimpleNamespace(req_id=name, sampling_params=params, num_computed_tokens=0)


def watch(runner, buffer):
    seen = []
    drain = Drain(FORMAT.row_bytes, 4, torch.device("cpu"))
    return seen, watch_steps(runner, buffer, drain, seen.append)


def test_steps_are_labelled_until_watching_stops(runner, buffer):
    """Request b has two rows, a one; after the stop a step costs nothing and tells nobody."""
    execute_model = runner.execute_model
    seen, stop = watch(runner, buffer)
    assert runner.execute_model(scheduled()) == "output"
    (step,) = seen
    assert (step.request_ids, step.row_counts) == (["b", "a"], [2, 1])
    rows = step.slot.rows()
    assert FORMAT.array(rows, "position")[:, 0].tolist() == [3, 4, 0]
    assert FORMAT.array(rows, "token_id")[:, 0].tolist() == [30, 31, 20]
    assert FORMAT.array(rows, "expert_ids")[:, 0].tolist() == [[5], [6], [7]]

    stop()

    assert runner.execute_model is execute_model
    assert runner.execute_model(scheduled()) == "output"
    assert len(seen) == 1


def test_a_step_does_not_change_when_the_next_one_runs(runner, buffer):
    seen, _ = watch(runner, buffer)
    runner.execute_model(scheduled())
    runner.positions += 1
    runner.execute_model(scheduled())
    first, second = (FORMAT.array(s.slot.rows(), "position")[:, 0].tolist() for s in seen)
    assert (first, second) == ([3, 4, 0], [4, 5, 1])


def test_requests_switched_off_are_named_when_they_enter(runner, buffer):
    seen, _ = watch(runner, buffer)
    new = [
        new_request("a", None),
        new_request("b", {"moe_tracer": {"capture": False}}),
        new_request("c", {"moe_tracer": {"capture": True}, "other": 1}),
        new_request("d", {"other": {"capture": False}}),
        SimpleNamespace(req_id="pooled", sampling_params=None, num_computed_tokens=0),
    ]
    runner.execute_model(scheduled(new=new))
    runner.execute_model(scheduled())
    assert [step.muted for step in seen] == [("b",), ()]


def test_tokens_that_a_cache_answers_are_told_of_those_who_enter_or_come_back(runner, buffer):
    """a and b go on from 7 and 9; only of b, back after a preemption, is that a skip."""
    seen, _ = watch(runner, buffer)
    new = [new_request("c", None), new_request("d", None)]
    new[1].num_computed_tokens = 32
    runner.execute_model(scheduled(new=new, resumed=["b"]))
    runner.execute_model(scheduled())
    assert [set(step.skipped) for step in seen] == [{("d", 32), ("b", 9)}, set()]


def test_ends_reported_with_an_idle_step_come_with_the_next_one(runner, buffer):
    seen, _ = watch(runner, buffer)
    runner.execute_model(scheduled(tokens=0, finished=["x"]))
    assert not seen
    runner.execute_model(scheduled(finished=["y"]))
    assert [set(step.ended) for step in seen] == [{"x", "y"}]


def test_a_runner_that_forwards_fewer_tokens_than_it_schedules_is_refused():
    """Known only once the drafter is loaded, which may be after the model."""
    runner = SimpleNamespace(req_states=object(), adaptive_verification=None)
    check_runner(runner)
    runner.adaptive_verification = object()
    with pytest.raises(UnsupportedModelError, match="how many draft tokens run") as caught:
        check_runner(runner)
    assert "enable_adaptive_verification" in caught.value.hint


def test_a_warm_up_step_is_not_recorded(runner, buffer):
    calls = []
    runner.execute_model = lambda *_, **options: calls.append(options)
    seen, _ = watch(runner, buffer)
    runner.execute_model(scheduled(), dummy_run=True)
    assert calls == [{"dummy_run": True}]
    assert not seen
