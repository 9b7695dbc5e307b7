"""A started vLLM engine: the handshake with its workers, requests in, remote calls."""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from tracer.errors import EngineFailedError, TracerError, UnsupportedModelError, first_line

__all__ = ["Engine", "start"]

_WATCH_SECONDS = 1.0


def start(config: Any) -> "Engine":
    """Load the model and attach to it.

    Raises:
        EngineFailedError: vLLM fails to start.
        UnsupportedModelError: it starts, and its routers cannot be captured.
    """
    from vllm.usage.usage_lib import UsageContext
    from vllm.v1.engine.llm_engine import LLMEngine

    try:
        llm_engine = LLMEngine.from_vllm_config(
            config, usage_context=UsageContext.LLM_CLASS, disable_log_stats=True
        )
    except Exception as error:
        raise EngineFailedError("to start", first_line(error)) from error
    engine = Engine(llm_engine)
    try:
        engine.shake_hands()
    except BaseException:
        engine.shutdown()
        raise
    return engine


class Engine:
    """A started vLLM engine whose workers answer the ``tracer_*`` calls."""

    def __init__(self, llm_engine: Any) -> None:
        self._engine = llm_engine
        self.model: Mapping[str, Any] = {}
        self._stopping = threading.Event()
        core = llm_engine.engine_core
        if hasattr(core, "outputs_queue"):  # the engine core is a process of its own
            threading.Thread(target=self._watch, args=(core,), daemon=True).start()

    def _watch(self, core: Any) -> None:
        """Wake whoever waits for an engine core that was killed.

        vLLM notices and stops reading its answers, but leaves its synchronous callers waiting
        for them (0.30 to 0.32, seen).
        """
        from vllm.v1.engine.exceptions import EngineDeadError

        while not self._stopping.wait(_WATCH_SECONDS):
            if core.resources.engine_dead:
                core.outputs_queue.put(EngineDeadError())
                for answer in list(core.utility_results.values()):
                    if not answer.done():
                        answer.set_exception(EngineDeadError())
                return

    def shake_hands(self) -> None:
        """Ask every worker what it attached; keep the answer of those that record.

        Raises:
            UnsupportedModelError: a worker refuses, or none records.
        """
        try:
            answers = self._engine.collective_rpc("tracer_hello")
        except Exception as error:
            raise UnsupportedModelError(
                "the engine's workers do not know the capture plugin",
                "is VLLM_PLUGINS set? It must name moe_tracer.",
            ) from error
        for answer in answers:
            if "refusal" in answer:
                refusal = answer["refusal"]
                raise UnsupportedModelError(refusal["message"], refusal["hint"])
        recording = [answer for answer in answers if answer["records"]]
        if not recording:
            raise UnsupportedModelError("no worker of the engine records routing")
        self.model = recording[0]

    @property
    def config(self) -> Any:
        """``vllm.config.VllmConfig`` as the engine completed it."""
        return self._engine.vllm_config

    def add(self, request_id: str, token_ids: Sequence[int], params: Any) -> str:
        """Queue a request; returns the id its rows carry in the workers."""
        with _told_as_failure():
            prompt = {"prompt_token_ids": list(token_ids)}
            return str(self._engine.add_request(request_id, prompt, params))

    def step(self) -> list[Any]:
        """One engine step; returns the outputs of requests that finished in it."""
        with _told_as_failure():
            return [output for output in self._engine.step() if output.finished]

    def call(self, method: str, *args: Any) -> list[Any]:
        """Answers of all workers to one remote call, errors among them raised.

        Raises:
            TracerError: a worker answered with an error.
            EngineFailedError: it did not answer.
        """
        with _told_as_failure():
            answers = self._engine.collective_rpc(method, args=args)
        for answer in answers:
            if isinstance(answer, dict) and "error" in answer:
                raise _revived(answer["error"])
        return list(answers)

    def shutdown(self) -> None:
        """Stop the engine and its processes."""
        self._stopping.set()
        self._engine.engine_core.shutdown()


@contextmanager
def _told_as_failure() -> Iterator[None]:
    """Whatever vLLM raises while it runs, as the engine's failure."""
    try:
        yield
    except TracerError:
        raise
    except Exception as error:
        raise EngineFailedError("while running", first_line(error)) from error


def _revived(error: Mapping[str, Any]) -> TracerError:
    """A worker's error in this process, with its exit code and hint."""
    revived = TracerError(error["message"] or error["type"], error["hint"])
    revived.exit_code = error["exit_code"] or 3
    return revived
