"""How a request ended: known to the scheduler and the front end, told to the worker.

A worker only learns that a request is gone. Whether it was finished or given up, and which tokens
it ended with, the scheduler knows; that a stop text was found, only the front end does, which then
aborts the request. So the front end marks such an abort by one more id, and the scheduler attaches
to each of its outputs the endings of the requests that the output names as finished. Both travel
the way that vLLM sends these things anyway.

Read from vLLM 0.26 to 0.33; run on 0.32 with one worker on a CPU.
"""

import contextlib
import functools
import logging
from collections.abc import Iterable, Iterator
from typing import Any

from tracer.capture.plugin import CONFIG_KEY, LIVE_KEY

__all__ = ["endings_of", "is_live", "mark_stop_texts", "tell_endings"]

_ATTRIBUTE = "moe_tracer_endings"
# No id of a request begins like this: vLLM refuses none, but makes them from `cmpl-` and the like.
_MARK = "\x00moe-tracer-stopped/"

_logger = logging.getLogger("vllm.moe_tracer")

# (request id, finish reason, output tokens)
Ending = tuple[str, str, list[int]]


def is_live(vllm_config: Any) -> bool:
    """Whether this engine records live traffic."""
    extra = getattr(vllm_config, "additional_config", None)
    options = extra.get(CONFIG_KEY) if isinstance(extra, dict) else None
    return bool(isinstance(options, dict) and options.get(LIVE_KEY))


def endings_of(scheduler_output: Any) -> list[Ending]:
    """The endings that the scheduler attached to its output."""
    return getattr(scheduler_output, _ATTRIBUTE, [])


def tell_endings(scheduler_class: Any) -> None:
    """Have schedulers of live engines attach endings to what they send to workers.

    Args:
        scheduler_class: ``vllm.v1.core.sched.scheduler.Scheduler``.
    """
    free, schedule = scheduler_class._free_request, scheduler_class.schedule  # noqa: SLF001
    finish = scheduler_class.finish_requests

    @functools.wraps(free)
    def free_request(scheduler: Any, request: Any, *args: Any, **kwargs: Any) -> Any:
        with _serving_goes_on("how a request ended"):
            if is_live(scheduler.vllm_config) and request.sampling_params is not None:
                _note_ending(_state(scheduler), request)
        return free(scheduler, request, *args, **kwargs)

    @functools.wraps(schedule)
    def schedule_and_tell(scheduler: Any, *args: Any, **kwargs: Any) -> Any:
        output = schedule(scheduler, *args, **kwargs)
        with _serving_goes_on("how requests ended"):
            if is_live(scheduler.vllm_config) and (ended := _state(scheduler)["ended"]):
                _state(scheduler)["ended"] = []
                setattr(output, _ATTRIBUTE, ended)
        return output

    @functools.wraps(finish)
    def finish_requests(scheduler: Any, request_ids: Any, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(request_ids, str | None):
            request_ids = list(request_ids)
            with _serving_goes_on("which requests a stop text ended"):
                if is_live(scheduler.vllm_config):
                    request_ids, stopped = _split(request_ids)
                    # Of requests that ended meanwhile nothing is remembered.
                    _state(scheduler)["stopped"] = {
                        name: count for name, count in stopped.items() if name in scheduler.requests
                    }
        return finish(scheduler, request_ids, *args, **kwargs)

    scheduler_class._free_request = free_request  # noqa: SLF001
    scheduler_class.schedule = schedule_and_tell
    scheduler_class.finish_requests = finish_requests


@contextlib.contextmanager
def _serving_goes_on(what: str) -> Iterator[None]:
    """Log what goes wrong once; the worker drops requests of which it is told no ending."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - it would end the engine
        _log_once(f"moe-tracer: this vLLM does not tell {what}: {error!r}"[:500])


@functools.lru_cache(maxsize=64)
def _log_once(words: str) -> None:
    _logger.error(words)


def _note_ending(state: dict[str, Any], request: Any) -> None:
    stopped = state["stopped"].pop(request.request_id, None)
    tokens = list(request.output_token_ids)
    finished = request.get_finished_reason()  # `stop` is 0, so not to be asked for truth
    reason = "abort" if finished is None else str(finished)
    if stopped is not None:
        reason, tokens = "stop", tokens[:stopped]
    state["ended"].append((request.request_id, reason, tokens))


def _state(scheduler: Any) -> dict[str, Any]:
    state: dict[str, Any] | None = vars(scheduler).get("moe_tracer_state")
    if state is None:
        state = scheduler.moe_tracer_state = {"ended": [], "stopped": {}}
    return state


def _split(request_ids: Iterable[str]) -> tuple[list[str], dict[str, int]]:
    """Ids without marks, and the output tokens of those that a stop text ended."""
    names: list[str] = []
    stopped: dict[str, int] = {}
    for name in request_ids:
        if name.startswith(_MARK):
            count, _, stopped_id = name.removeprefix(_MARK).partition("/")
            stopped[stopped_id] = int(count)
        else:
            names.append(name)
    return names, stopped


def mark_stop_texts(processor_class: Any) -> None:
    """Have front ends say of which aborted requests a stop text was found.

    Args:
        processor_class: ``vllm.v1.engine.output_processor.OutputProcessor``.
    """
    process = processor_class.process_outputs

    @functools.wraps(process)
    def process_outputs(processor: Any, outputs: Any, *args: Any, **kwargs: Any) -> Any:
        states: dict[str, Any] = {}
        with _serving_goes_on("which requests a stop text ended"):
            states = {
                output.request_id: state
                for output in outputs
                if (state := processor.request_states.get(output.request_id)) is not None
            }
        done = process(processor, outputs, *args, **kwargs)
        with _serving_goes_on("which requests a stop text ended"):
            if done.reqs_to_abort:
                marks = [
                    f"{_MARK}{states[name].detokenizer.num_output_tokens()}/{name}"
                    for name in done.reqs_to_abort
                    if name in states and states[name].detokenizer is not None
                ]
                done.reqs_to_abort.extend(marks)
        return done

    processor_class.process_outputs = process_outputs
