"""Capture inside one vLLM worker: attaches at model load, then obeys four remote calls.

The driver reaches them through vLLM's ``collective_rpc`` by name; arguments and answers are
plain values, so no insecure serialisation is needed. Errors come back as answers, because an
exception in a worker reaches the driver without its type.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tracer.capture.attach import attach, detach
from tracer.capture.buffer import RoutingBuffer
from tracer.capture.collector import Collector, FinishedRequest, describe_error
from tracer.capture.router_facts import AttachedModel
from tracer.capture.steps import Step, check_runner, watch_steps
from tracer.errors import TracerError
from tracer.store.shard import ShardWriter

__all__ = ["WorkerCapture", "install"]


def install(worker: Any) -> None:
    """Give a vLLM worker the ``tracer_*`` calls and attach once its model is loaded.

    Attaching there, before warm-up, is what gets the hook into CUDA graphs and compiled code.
    """
    capture = WorkerCapture(worker)
    load_model = worker.load_model

    def load_and_attach(*args: Any, **kwargs: Any) -> Any:
        result = load_model(*args, **kwargs)
        capture.attach()
        return result

    worker.load_model = load_and_attach
    worker.tracer_hello = capture.hello
    worker.tracer_begin = capture.begin
    worker.tracer_seal = capture.seal
    worker.tracer_collect = capture.collect
    worker.tracer_end = capture.end


class WorkerCapture:
    """State of capture in one worker.

    Only the first rank of a tensor-parallel group records: its peers route the same tokens.
    """

    def __init__(self, worker: Any) -> None:
        self._worker = worker
        self._refusal: TracerError | None = None
        self._model: AttachedModel | None = None
        self._buffer: RoutingBuffer | None = None
        self._stop_watching: Callable[[], None] | None = None
        self._collector: Collector | None = None

    @property
    def _records(self) -> bool:
        size: int = self._worker.parallel_config.tensor_parallel_size
        return int(self._worker.rank) % size == 0

    def attach(self) -> None:
        """Hook the routers of the loaded model; a refusal is kept for ``hello`` to report."""
        if not self._records:
            return
        runner = self._worker.model_runner
        try:
            check_runner(runner)
            self._model, self._buffer = attach(
                runner.get_model(), runner.max_num_tokens, self._worker.device
            )
        except TracerError as error:
            self._refusal = error
            return
        self._stop_watching = watch_steps(runner, self._buffer, self._receive)

    def _receive(self, step: Step) -> None:
        if self._collector is not None:
            self._collector.receive(step)

    def hello(self) -> dict[str, Any]:
        """The handshake: what was attached, or why nothing was."""
        if self._refusal is not None:
            return {"refusal": describe_error(self._refusal)}
        if self._model is None:
            return {"records": False}
        return {
            "records": True,
            "runner": type(self._worker.model_runner).__name__,
            **self._model.to_dict(),
        }

    def begin(self, lake_path: str, run_id: str, precision: str, attempt: str) -> None:
        """Start recording into a lake. Rows of earlier requests are not kept.

        ``attempt`` goes into the shards' names: a worker that outlived its killed driver cannot
        overwrite what a later attempt wrote.
        """
        if self._model is None:
            return
        writer = ShardWriter(Path(lake_path), run_id, self._model.num_experts, precision)
        self._collector = Collector(
            writer, self._model.layer_ids, f"w{self._worker.rank}-{attempt}"
        )
        self._collector.start()

    def seal(self, batch: int, finished: Sequence[Sequence[Any]]) -> Any:
        """Queue the batch for writing. ``finished`` holds the fields of ``FinishedRequest``."""
        if self._collector is None:
            return None
        try:
            self._collector.seal(batch, [FinishedRequest(*item) for item in finished])
        except Exception as error:  # noqa: BLE001 - the driver raises it
            return {"error": describe_error(error)}
        return None

    def collect(self, wait: bool) -> dict[str, Any] | None:
        """Shards written since the last call, or the error that stopped the writer."""
        if self._collector is None:
            return None
        try:
            written = self._collector.take_written(wait=wait)
        except Exception as error:  # noqa: BLE001 - the driver raises it
            return {"error": describe_error(error)}
        return {
            "written": [[n, [file.to_dict() for file in files]] for n, files in written.items()]
        }

    def end(self) -> None:
        """Stop recording and take the hooks out; the engine runs on as if never captured."""
        if self._collector is not None:
            self._collector.stop()
            self._collector = None
        if self._stop_watching is not None:
            self._stop_watching()
            self._stop_watching = None
            detach(self._worker.model_runner.get_model())
