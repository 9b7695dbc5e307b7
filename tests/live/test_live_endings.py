"""How requests ended, from vLLM's scheduler and front end to its worker; without an engine."""

import pickle
from types import SimpleNamespace

import pytest

pytest.importorskip("vllm", reason="needs vLLM: make setup")

from tracer.capture.plugin import CONFIG_KEY
from tracer.live.endings import endings_of, mark_stop_texts, tell_endings


class Output:
    """As vLLM's output of a scheduler, which is pickled on its way to a worker."""


def make_scheduler(*, live=True):
    class Scheduler:
        def __init__(self):
            options = {CONFIG_KEY: {"live": True}} if live else {}
            self.vllm_config = SimpleNamespace(additional_config=options)
            self.requests = {}
            self.asked = []

        def _free_request(self, request, **_):
            del self.requests[request.request_id]
            return "freed"

        def schedule(self):
            return Output()

        def finish_requests(self, request_ids, status):
            self.asked.append((request_ids, status))
            for name in list(self.requests) if request_ids is None else request_ids:
                if name in self.requests:
                    self.requests[name].status = status
                    self._free_request(self.requests[name])

    tell_endings(Scheduler)
    return Scheduler()


def add(scheduler, name, tokens, status="RUNNING"):
    from vllm.v1.request import RequestStatus

    request = SimpleNamespace(
        request_id=name,
        output_token_ids=tokens,
        sampling_params=SimpleNamespace(),
        status=RequestStatus[status],
    )
    request.get_finished_reason = lambda: RequestStatus.get_finished_reason(request.status)
    scheduler.requests[name] = request
    return request


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        ("FINISHED_STOPPED", "stop"),
        ("FINISHED_LENGTH_CAPPED", "length"),
        ("FINISHED_ABORTED", "abort"),
        ("RUNNING", "abort"),
    ],
)
def test_the_next_output_tells_once_how_a_request_ended(status, reason):
    scheduler = make_scheduler()
    assert scheduler._free_request(add(scheduler, "a", [1, 2], status)) == "freed"
    sent = pickle.loads(pickle.dumps(scheduler.schedule()))  # noqa: S301 - our own
    assert endings_of(sent) == [("a", reason, [1, 2])]
    assert endings_of(scheduler.schedule()) == []


def test_other_engines_are_left_alone():
    scheduler = make_scheduler(live=False)
    scheduler._free_request(add(scheduler, "a", [1], "FINISHED_STOPPED"))
    assert vars(scheduler.schedule()) == {}


def test_an_abort_after_a_stop_text_is_told_from_one_by_the_client():
    from vllm.v1.request import RequestStatus

    class Processor:
        def __init__(self):
            detokenizer = SimpleNamespace(num_output_tokens=lambda: 2)
            self.request_states = {"s": SimpleNamespace(detokenizer=detokenizer)}

        def process_outputs(self, outputs):
            self.request_states.clear()
            return SimpleNamespace(reqs_to_abort=["s"])

    mark_stop_texts(Processor)
    to_abort = Processor().process_outputs([SimpleNamespace(request_id="s")]).reqs_to_abort
    scheduler = make_scheduler()
    add(scheduler, "s", [1, 2, 3])  # the engine ran on for a token
    add(scheduler, "gone", [4])
    scheduler.finish_requests([*to_abort, "gone"], RequestStatus.FINISHED_ABORTED)
    assert scheduler.asked == [(["s", "gone"], RequestStatus.FINISHED_ABORTED)]
    assert sorted(endings_of(scheduler.schedule())) == [
        ("gone", "abort", [4]),
        ("s", "stop", [1, 2]),
    ]
    add(scheduler, "left", [5])
    scheduler.finish_requests(None, RequestStatus.FINISHED_ABORTED)
    assert endings_of(scheduler.schedule()) == [("left", "abort", [5])]


def test_what_this_vllm_does_not_tell_does_not_reach_serving(caplog):
    from vllm.v1.request import RequestStatus

    scheduler = make_scheduler()
    request = add(scheduler, "a", [1], "FINISHED_STOPPED")
    del request.get_finished_reason
    assert scheduler._free_request(request) == "freed"
    assert endings_of(scheduler.schedule()) == []
    type(scheduler).__slots__ = ()
    add(scheduler, "b", [1])
    del scheduler.vllm_config
    scheduler.finish_requests({"b"}, RequestStatus.FINISHED_ABORTED)
    assert scheduler.asked == [(["b"], RequestStatus.FINISHED_ABORTED)]
    assert scheduler.requests == {}
    assert "does not tell how a request ended" in caplog.text


def test_a_front_end_of_another_vllm_serves(caplog):
    class Processor:
        request_states = None

        def process_outputs(self, outputs):
            return outputs

    mark_stop_texts(Processor)
    assert Processor().process_outputs(["output"]) == ["output"]
    assert "does not tell which requests a stop text ended" in caplog.text
