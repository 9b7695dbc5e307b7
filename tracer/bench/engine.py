"""One vLLM engine in this process, eager, on one thread, with its worker at hand."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tracer.capture import engine_setup
from tracer.capture.engine import Engine
from tracer.capture.engine_setup import EngineIdentity
from tracer.errors import InputError

__all__ = ["BenchEngine", "fast_dtype", "prepare", "started"]

_OPTIONS = ("--enforce-eager", "--skip-tokenizer-init")
# Later versions on a CPU ask for a model runner that needs Triton; earlier ones were not run.
_NATIVE_VERSION = "0.30."
_MATRIX = 256
_TRIES = 3


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

    OpenMP reads its number of threads once, when torch loads it. ``started`` refuses to measure
    in a process where that came first.

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


def fast_dtype() -> str:
    """Bfloat16, as models are served, or float32 where this CPU multiplies that faster.

    Without instructions for bfloat16 a CPU takes up to 60 times as long, and beside so slow a
    model any recording would look free.
    """
    import torch

    def least_s(dtype: Any) -> float:
        matrix = torch.ones((_MATRIX, _MATRIX), dtype=dtype)
        spent = []
        for _ in range(_TRIES):
            began = time.process_time()
            torch.mm(matrix, matrix)
            spent.append(time.process_time() - began)
        return min(spent)

    return "float32" if least_s(torch.float32) < least_s(torch.bfloat16) else "bfloat16"


@contextmanager
def started(model: Path, identity: EngineIdentity, dtype: str) -> Iterator[BenchEngine]:
    """An engine that computes ``model`` in ``dtype``, hooks attached as its model was loaded.

    Raises:
        InputError: it computes on several threads, which wait for each other by spinning.
        TracerError: the engine does not start, or the model cannot be captured.
    """
    import torch
    from vllm.usage.usage_lib import UsageContext
    from vllm.v1.engine.llm_engine import LLMEngine

    native = identity.distribution == "vllm-cpu" and identity.version.startswith(_NATIVE_VERSION)
    options = [*_OPTIONS, "--dtype", dtype]
    if native:
        options.append("--enable-return-routed-experts")
    config = engine_setup.configure(str(model), options)
    llm_engine = LLMEngine.from_vllm_config(
        config, usage_context=UsageContext.LLM_CLASS, disable_log_stats=True
    )
    engine = Engine(llm_engine)
    try:
        if torch.get_num_threads() != 1:
            raise InputError(
                f"the engine computes on {torch.get_num_threads()} threads; cost is measured on"
                " one, and torch was imported before that was settled",
                "set OMP_NUM_THREADS=1 before Python starts.",
            )
        engine.shake_hands()
        workers: list[Any] = []
        llm_engine.collective_rpc(workers.append)
        scheduler = llm_engine.engine_core.engine_core.scheduler
        yield BenchEngine(engine, workers[0], scheduler, native)
    finally:
        engine.shutdown()
