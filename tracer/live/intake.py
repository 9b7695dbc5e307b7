"""The engine's thread: which requests of a step are recorded, and their rows on the way.

Requests that were not chosen cost one look into a dictionary a step. A step without a chosen one is
not copied. Nothing here waits: where there is no room for a step's rows, the chosen requests in it
are lost, whole. Nothing here raises into serving, either: what goes wrong ends recording.
"""

from collections.abc import Callable
from typing import Any, Protocol

from tracer.capture.buffer import RoutingBuffer
from tracer.capture.drain import Drain, Slot
from tracer.capture.steps import batch_reader, on_device, skipped_tokens
from tracer.live.choose import Chooser
from tracer.live.endings import endings_of
from tracer.live.messages import Ended, Forwarded, Lost, Opened

__all__ = ["Intake", "Receiver", "watch_traffic"]


class Receiver(Protocol):
    """Where an intake tells what happens; no method waits."""

    def put(self, message: Any, rows: int | None = None) -> None:
        """Take a message; ``rows``: how many rows it holds, None if it is urgent."""

    def has_room(self) -> bool:
        """Whether another request may begin."""


class Intake:
    """Requests that are recorded at this moment.

    Args:
        chooser: decides.
        receiver: gets what was recorded.
        drop: told of chosen requests that do not begin: the reason, and how many.
    """

    def __init__(
        self, chooser: Chooser, receiver: Receiver, drop: Callable[[str, int], None]
    ) -> None:
        self._chooser = chooser
        self._receiver = receiver
        self._drop = drop
        self._open: dict[str, None] = {}
        # All that the engine runs or has preempted: the V2 runner meets those again.
        self._met: set[str] = set()
        self.recording = True

    def begin(self, scheduler_output: Any) -> bool:
        """Look at a step before it runs; returns whether its rows are wanted."""
        for request_id, reason, tokens in endings_of(scheduler_output):
            if self._open.pop(request_id, self) is None:
                self._receiver.put(Ended(request_id, reason, tokens), 0)
        self._met.difference_update(scheduler_output.finished_req_ids)
        # A request that vanished without an ending: of a scheduler that is not vLLM's own.
        gone = [name for name in scheduler_output.finished_req_ids if name in self._open]
        if gone:
            self._lose(gone, "no_ending")
        for request in scheduler_output.scheduled_new_reqs:
            self._meet(request)
        return not self._open.keys().isdisjoint(scheduler_output.num_scheduled_tokens)

    def _meet(self, request: Any) -> None:
        if request.sampling_params is None or request.req_id in self._met:
            return
        self._met.add(request.req_id)
        if not self.recording:
            self._chooser.counts.seen += 1
            self._chooser.counts.leave_out("stopped")
            return
        chosen = self._chooser.choose(request.req_id, request.sampling_params.extra_args)
        if chosen is None:
            return
        if not request.prompt_token_ids or request.prompt_embeds is not None:
            self._drop("no_token_ids", 1)
        elif not self._receiver.has_room():
            self._drop("queue_full", 1)
        else:
            self._open[request.req_id] = None
            self._receiver.put(
                Opened(request.req_id, chosen.domain, chosen.labels, request.prompt_token_ids), 0
            )

    def forwarded(
        self, request_ids: list[str], row_counts: list[int], slot: Slot | None, scheduled: Any
    ) -> None:
        """Take the rows of a step that ran; without a slot there was no room for them."""
        if slot is None:
            mine = [name for name in request_ids if name in self._open]
            self._lose(mine, "queue_full")
            return
        message = Forwarded(request_ids, row_counts, slot, skipped_tokens(scheduled))
        self._receiver.put(message, sum(row_counts))

    def forget(self, request_id: str) -> None:
        """The receiver gave a request up; from any thread."""
        self._open.pop(request_id, None)

    def give_up(self) -> None:
        """Forget all requests and take no others; from any thread."""
        self._open.clear()
        self.recording = False

    def fail(self) -> None:
        """Give up after an error of the engine's thread: what is open is lost."""
        self._lose(list(self._open), "error")
        self.give_up()

    def _lose(self, request_ids: list[str], reason: str) -> None:
        """The receiver counts them: it may just have given up some of them itself."""
        for name in request_ids:
            self._open.pop(name, None)
        self._receiver.put(Lost(request_ids, reason), 0)


def watch_traffic(
    runner: Any,
    buffer: RoutingBuffer,
    drain: Drain,
    intake: Intake,
    failed: Callable[[BaseException], None],
) -> Callable[[], None]:
    """Record the forward passes of ``runner``, until the answer is called.

    Args:
        runner: as ``tracer.capture.steps.watch_steps`` has it.
        buffer: what the routers write to.
        drain: takes the records off the device.
        intake: decides and receives.
        failed: told of the first error in here, after which nothing is recorded any more.
    """
    execute_model = runner.execute_model
    batch_of = batch_reader(runner)
    broken = False

    def attempt(work: Callable[..., Any], *args: Any) -> Any:
        nonlocal broken
        try:
            return None if broken else work(*args)
        except Exception as error:  # noqa: BLE001 - serving goes on
            broken = True
            intake.fail()
            failed(error)
            return None

    def begin(scheduler_output: Any) -> bool:
        wanted = intake.begin(scheduler_output)
        tokens = scheduler_output.total_num_scheduled_tokens
        if wanted and tokens:
            buffer.clear(tokens)
        return wanted and bool(tokens)

    def take(scheduler_output: Any) -> None:
        request_ids, row_counts, positions, token_ids = batch_of(runner)
        rows = sum(row_counts)
        records = buffer.label(on_device(positions)[:rows], on_device(token_ids)[:rows])
        intake.forwarded(request_ids, row_counts, drain.take_now(records), scheduler_output)

    def execute_and_record(scheduler_output: Any, *args: Any, **kwargs: Any) -> Any:
        if kwargs.get("dummy_run"):
            return execute_model(scheduler_output, *args, **kwargs)
        wanted = attempt(begin, scheduler_output)
        output = execute_model(scheduler_output, *args, **kwargs)
        if wanted:
            attempt(take, scheduler_output)
        return output

    def stop() -> None:
        runner.execute_model = execute_model

    runner.execute_model = execute_and_record
    return stop
