"""A started vLLM engine: the handshake with its workers, requests in, remote calls."""

import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from tracer.errors import EngineFailedError, TracerError, UnsupportedModelError, first_line

__all__ = ["Engine", "merge_models", "start"]

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
        self.num_recording = 0
        self._stopping = threading.Event()
        core = llm_engine.engine_core
        if hasattr(core, "outputs_queue"):  # the engine core is a process of its own
            threading.Thread(target=self._watch, args=(core,), daemon=True).start()

    def _watch(self, core: Any) -> None:
        """Wake whoever waits for an engine core that was killed, or that has nothing to do.

        vLLM notices and stops reading its answers, but leaves its synchronous callers waiting
        for them (0.30 to 0.32, seen). The same happens to whoever waits while all requests are
        aborted from another thread.
        """
        from vllm.v1.engine import EngineCoreOutputs
        from vllm.v1.engine.exceptions import EngineDeadError

        while not self._stopping.wait(_WATCH_SECONDS):
            if not self._engine.get_num_unfinished_requests() and core.outputs_queue.empty():
                core.outputs_queue.put(EngineCoreOutputs())
            if core.resources.engine_dead:
                core.outputs_queue.put(EngineDeadError())
                for answer in list(core.utility_results.values()):
                    if not answer.done():
                        answer.set_exception(EngineDeadError())
                return

    def shake_hands(self) -> None:
        """Ask every worker what it attached; put the answers of those that record together.

        Raises:
            UnsupportedModelError: a worker refuses, none records, or they contradict each other.
        """
        try:
            answers = self._engine.collective_rpc("tracer_hello", args=(os.getpid(),))
        except Exception as error:
            raise UnsupportedModelError(
                "the engine's workers do not know the capture plugin",
                "is VLLM_PLUGINS set? It must name moe_tracer.",
            ) from error
        for answer in answers:
            if "refusal" in answer:
                raise _revived(answer["refusal"])
        recording = [answer for answer in answers if answer["records"]]
        self.model = merge_models(recording)
        self.num_recording = len(recording)

    @property
    def config(self) -> Any:
        """``vllm.config.VllmConfig`` as the engine completed it."""
        return self._engine.vllm_config

    def add(
        self, request_id: str, token_ids: Sequence[int], params: Any, lora: Any | None = None
    ) -> str:
        """Queue a request; returns the id its rows carry in the workers."""
        with _told_as_failure():
            prompt = {"prompt_token_ids": list(token_ids)}
            return str(self._engine.add_request(request_id, prompt, params, lora_request=lora))

    def step(self) -> list[Any]:
        """One engine step; returns the outputs of requests that finished in it.

        Without a request to run there is no step: an engine core in another process would not
        answer.
        """
        with _told_as_failure():
            if not self._engine.get_num_unfinished_requests():
                return []
            return [output for output in self._engine.step() if output.finished]

    def lost(self, engine_ids: Mapping[str, str]) -> list[str]:
        """The requests that vLLM dropped without an output, which is what an abort does.

        Args:
            engine_ids: engine id of each request that neither finished nor was lost before.
        """
        if self._engine.get_num_unfinished_requests() >= len(engine_ids):
            return []
        known = self._engine.output_processor.request_states
        return [name for name, engine_id in engine_ids.items() if engine_id not in known]

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


# What every worker says of itself; all else it says of the model.
_OWN = {"records", "rank", "layer_ids"}


def merge_models(recording: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One model from the answers of the workers that record, each with layers of its own.

    Raises:
        UnsupportedModelError: none records, two record one layer, or they differ in what is
            said of all layers.
    """
    if not recording:
        raise UnsupportedModelError("no worker of the engine records routing")
    for fact in sorted(set(recording[0]) - _OWN):
        found = [answer.get(fact) for answer in recording]
        if any(value != found[0] for value in found):
            raise UnsupportedModelError(
                f"the stages of the pipeline differ in {fact.replace('_', ' ')}:"
                f" {', '.join(map(str, found))}",
                "one shape per model can be captured.",
            )
    layers = [layer for answer in recording for layer in answer["layer_ids"]]
    twice = sorted({layer for layer in layers if layers.count(layer) > 1})
    if twice:
        raise UnsupportedModelError(
            f"several workers record the layers {', '.join(map(str, twice))}",
            "capture with tensor or pipeline parallelism, or without any.",
        )
    return {**recording[0], "layer_ids": sorted(layers)}


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
