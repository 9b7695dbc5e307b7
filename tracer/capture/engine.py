"""A started vLLM engine: the handshake with its workers, requests in, remote calls."""

from collections.abc import Mapping, Sequence
from typing import Any

from tracer.capture.engine_setup import first_line
from tracer.errors import EngineFailedError, TracerError, UnsupportedModelError

__all__ = ["Engine", "start"]


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
    def tokenizer(self) -> Any:
        """The model's tokenizer."""
        return self._engine.get_tokenizer()

    @property
    def config(self) -> Any:
        """``vllm.config.VllmConfig`` as the engine completed it."""
        return self._engine.vllm_config

    def add(self, request_id: str, token_ids: Sequence[int], params: Any) -> str:
        """Queue a request; returns the id its rows carry in the workers."""
        return str(
            self._engine.add_request(request_id, {"prompt_token_ids": list(token_ids)}, params)
        )

    def step(self) -> list[Any]:
        """One engine step; returns the outputs of requests that finished in it."""
        return [output for output in self._engine.step() if output.finished]

    def call(self, method: str, *args: Any) -> list[Any]:
        """Answers of all workers to one remote call, errors among them raised.

        Raises:
            TracerError: a worker answered with an error.
        """
        answers = self._engine.collective_rpc(method, args=args)
        for answer in answers:
            if isinstance(answer, dict) and "error" in answer:
                raise _revived(answer["error"])
        return list(answers)

    def shutdown(self) -> None:
        """Stop the engine and its processes."""
        self._engine.engine_core.shutdown()


def _revived(error: Mapping[str, Any]) -> TracerError:
    """A worker's error in this process, with its exit code and hint."""
    revived = TracerError(error["message"] or error["type"], error["hint"])
    revived.exit_code = error["exit_code"] or 3
    return revived
