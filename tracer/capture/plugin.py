"""The vLLM plugin: loaded in every vLLM process, does something in few.

vLLM loads the ``vllm.general_plugins`` entry points in the front end, the engine core and
each worker, and does not promise to do so once, so ``register`` is idempotent. It only
arranges that a worker whose engine was started with ``additional_config["moe_tracer"]``
captures; any other engine runs as if the plugin were not installed. With ``TRACER_LIVE`` in the
environment the stage beside this one (``tracer.live``) has the engines of a server ask for it.

The setting travels in ``additional_config`` because that is part of vLLM's compile-cache
key: a graph compiled without the hook is never reused with it. Nothing that changes from
run to run stands there, or each run would compile anew.
"""

import logging
import os
from typing import Any

__all__ = ["CONFIG_KEY", "LIVE_KEY", "register"]

CONFIG_KEY = "moe_tracer"
# Among the options, where the engine serves and no driver will ask for anything.
LIVE_KEY = "live"
_LIVE_VARIABLES = "TRACER_LIVE"

_registered = False

_logger = logging.getLogger("vllm.moe_tracer")


def register() -> None:
    """Make workers of a capturing engine attach when they load their model.

    Wraps ``vllm.v1.worker.worker_base.WorkerBase.__init__``: every worker class of every
    platform passes through it, and it is a light import in the processes without a worker.
    """
    global _registered  # noqa: PLW0603
    if _registered:
        return
    _registered = True
    try:
        from vllm.v1.worker.worker_base import WorkerBase
    except ImportError as error:  # a capture says that no worker answers; all else runs on
        _logger.warning("moe-tracer: this vLLM is not one that can be captured: %s", error)
        return

    original_init = WorkerBase.__init__

    def init(worker: Any, *args: Any, **kwargs: Any) -> None:
        original_init(worker, *args, **kwargs)
        # A platform may keep an object of its own there.
        extra = worker.vllm_config.additional_config
        options = extra.get(CONFIG_KEY) if isinstance(extra, dict) else None
        if options is not None and options.get(LIVE_KEY):
            from tracer.live.worker import install_live

            install_live(worker, options)
        elif options is not None:
            from tracer.capture.record_options import RecordOptions
            from tracer.capture.worker import install

            install(worker, RecordOptions.from_dict(options))

    WorkerBase.__init__ = init
    if any(name.startswith(_LIVE_VARIABLES) for name in os.environ):
        from tracer.live.plugin import register_live

        register_live()
