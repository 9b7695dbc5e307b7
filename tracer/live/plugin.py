"""What the plugin changes in the processes of a server with ``TRACER_LIVE``.

The front end asks the engine for capture and marks stop texts, the engine core tells workers how
requests ended, the workers record (``worker.py``). Other engines of such a process, those of
`tracer capture` among them, are left alone.
"""

import functools
import logging
import os
from typing import Any

from tracer.capture.plugin import CONFIG_KEY, LIVE_KEY
from tracer.capture.record_options import RecordOptions
from tracer.capture.unproved import refuse_data_parallelism, refuse_unproved_layout
from tracer.errors import TracerError, UnsupportedModelError
from tracer.live.config import load_config
from tracer.live.endings import mark_stop_texts, tell_endings
from tracer.live.metrics import register_metrics

__all__ = ["STOP_SECONDS", "register_live"]

# When a server ends, vLLM kills its engine at once, and a worker after some seconds. So long they
# wait for the last rows instead; who is done is not waited for.
STOP_SECONDS = 20.0
_WORKER_VARIABLE = "VLLM_WORKER_SHUTDOWN_TIMEOUT_SECONDS"

_logger = logging.getLogger("vllm.moe_tracer")


def register_live() -> None:
    """Prepare this process; once.

    Raises:
        InputError: a configuration that cannot be used, so that the server does not start without
            what it was asked for.
    """
    config = load_config(os.environ)
    if config is None:
        return
    global _unknown  # noqa: PLW0603
    _unknown = None
    try:
        _hook_endings()
    except (ImportError, AttributeError) as error:
        _unknown = f"this vLLM is not one that live capture knows: {error}"
    try:
        _hook_arguments()
    except (ImportError, AttributeError) as error:
        _logger.error("moe-tracer: nothing will be recorded: %s", error)  # noqa: TRY400
    os.environ.setdefault(_WORKER_VARIABLE, str(int(STOP_SECONDS) - 5))
    register_metrics(config.control_folder)


# Why nothing can be recorded with this vLLM, if so.
_unknown: str | None = None


def _hook_endings() -> None:
    from vllm.v1.core.sched.scheduler import Scheduler
    from vllm.v1.engine import utils
    from vllm.v1.engine.output_processor import OutputProcessor

    tell_endings(Scheduler)
    mark_stop_texts(OutputProcessor)
    _give_time_to_stop(utils)


def _hook_arguments() -> None:
    from vllm.engine.arg_utils import EngineArgs

    create = EngineArgs.create_engine_config

    @functools.wraps(create)
    def create_engine_config(arguments: Any, *args: Any, **kwargs: Any) -> Any:
        _ask_for_capture(arguments)
        return create(arguments, *args, **kwargs)

    EngineArgs.create_engine_config = create_engine_config


def _ask_for_capture(arguments: Any) -> None:
    """Put the request for capture where workers find it, and what speaks against it."""
    extra = arguments.additional_config or {}
    if not isinstance(extra, dict) or CONFIG_KEY in extra:
        return
    options: dict[str, Any] = {**RecordOptions().to_dict(), LIVE_KEY: True}
    try:
        _refuse_unrecordable(arguments)
    except Exception as error:  # noqa: BLE001 - serving goes on
        options["refusal"] = str(error) if isinstance(error, TracerError) else repr(error)
        _logger.error("moe-tracer: nothing will be recorded: %s", options["refusal"])  # noqa: TRY400
    arguments.additional_config = {**extra, CONFIG_KEY: options}


def _refuse_unrecordable(arguments: Any) -> None:
    if _unknown is not None:
        raise UnsupportedModelError(_unknown, "use a vLLM from 0.26 to 0.33.")
    refuse_data_parallelism(arguments)
    refuse_unproved_layout(arguments)
    if arguments.pipeline_parallel_size > 1:
        raise UnsupportedModelError(
            "live capture writes from one worker, and pipeline parallelism spreads the layers"
            " over several",
            "use tensor parallelism, or capture offline.",
        )


def _give_time_to_stop(utils: Any) -> None:
    """Let the engine seal its last rows before it is killed; it leaves as soon as it has."""
    timeout = getattr(utils, "get_engine_process_shutdown_timeout", None)
    if timeout is None:  # an older vLLM, which waits by itself
        return

    @functools.wraps(timeout)
    def shutdown_timeout(*args: Any, **kwargs: Any) -> Any:
        found = timeout(*args, **kwargs)
        return found if found is None else max(found, STOP_SECONDS)

    utils.get_engine_process_shutdown_timeout = shutdown_timeout
