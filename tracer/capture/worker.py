"""Capture inside one vLLM worker: attaches at model load, then obeys a few remote calls.

The driver reaches them through vLLM's ``collective_rpc`` by name; arguments and answers are
plain values, so no insecure serialisation is needed. Errors come back as answers, because an
exception in a worker reaches the driver without its type.
"""

from collections.abc import Callable, Sequence
from typing import Any

from tracer.capture.attach import Attached, attach, join_peers
from tracer.capture.collector import Collector
from tracer.capture.drain import Drain
from tracer.capture.extras.router_weights import find_gates, read_router_weights
from tracer.capture.finished import FinishedRequest
from tracer.capture.lifeline import end_with
from tracer.capture.record_options import RecordOptions
from tracer.capture.steps import check_runner, watch_steps
from tracer.errors import TracerError, describe_error
from tracer.store.lake_location import open_storage
from tracer.store.shard import ShardFile, ShardWriter

__all__ = ["WorkerCapture", "install"]


def install(worker: Any, options: RecordOptions) -> None:
    """Give a vLLM worker the ``tracer_*`` calls and attach once its model is loaded.

    Attaching there, before warm-up, is what gets the hook into CUDA graphs and compiled code.
    """
    capture = WorkerCapture(worker, options)
    load_model = worker.load_model

    def load_and_attach(*args: Any, **kwargs: Any) -> Any:
        result = load_model(*args, **kwargs)
        capture.attach()
        return result

    worker.load_model = load_and_attach
    worker.tracer_capture = capture
    worker.tracer_hello = capture.hello
    worker.tracer_begin = capture.begin
    worker.tracer_seal = capture.seal
    worker.tracer_discard = capture.discard
    worker.tracer_collect = capture.collect
    worker.tracer_stop = capture.stop
    worker.tracer_end = capture.end


class WorkerCapture:
    """State of capture in one worker.

    Only the first rank of a tensor-parallel group records: its peers route the same tokens. Of
    pipeline stages each records its own layers, and the first one the tokens.
    """

    def __init__(self, worker: Any, options: RecordOptions) -> None:
        self._worker = worker
        self._options = options
        self._refusal: TracerError | None = None
        self._attached: Attached | None = None
        self._gates: dict[int, Any] = {}
        self._drain: Drain | None = None
        self._stop_watching: Callable[[], None] | None = None
        self._collector: Collector | None = None

    @property
    def _records(self) -> bool:
        return self._rank_in_stage == 0

    @property
    def _rank_in_stage(self) -> int:
        return int(self._worker.rank) % int(self._worker.parallel_config.tensor_parallel_size)

    @property
    def _is_first_stage(self) -> bool:
        return int(self._worker.rank) < int(self._worker.parallel_config.tensor_parallel_size)

    def attach(self) -> None:
        """Hook the routers of the loaded model; a refusal is kept for ``hello`` to report."""
        runner, device = self._worker.model_runner, self._worker.device
        config = self._worker.vllm_config
        try:
            check_runner(runner)
            if not self._records:
                join_peers(runner.get_model(), config)
                return
            model = runner.get_model()
            self._attached = attach(model, config, runner.max_num_tokens, device, self._options)
            if self._options.router_weights:
                facts, runners = self._attached.facts, self._attached.runners
                self._gates = find_gates(model, runners, facts.num_experts)
        except TracerError as error:
            self._refusal = error
            return
        # Now, not when recording begins: vLLM gives what memory is left to its cache.
        if self._drain is None:
            buffer = self._attached.buffer
            self._drain = Drain(buffer.row_format.row_bytes, len(buffer.storage), device)

    def detach(self) -> None:
        """Take the hooks out; an eager engine runs on as if never captured."""
        if self._attached is not None:
            self._attached.detach()
            self._attached = None

    def hello(self, driver: int) -> dict[str, Any]:
        """The handshake: what was attached, or why nothing was. ``driver``: who asks, a pid."""
        end_with(driver)
        if self._refusal is not None:
            return {"refusal": describe_error(self._refusal)}
        if self._attached is None:
            return {"records": False}
        return {
            "records": True,
            "rank": int(self._worker.rank),
            "runner": type(self._worker.model_runner).__name__,
            **self._attached.facts.to_dict(),
        }

    def begin(self, lake: str, run_id: str, attempt: str, first: bool = True) -> Any:
        """Start recording into a lake. Rows of earlier requests are not kept.

        Args:
            lake: its location.
            run_id: the run.
            attempt: goes into the shards' names: a worker that outlived its killed driver cannot
                overwrite what a later attempt wrote.
            first: nothing of the run is committed yet, so what is written once is due.
        """
        if self._attached is None or self._drain is None:
            return None
        facts, buffer = self._attached.facts, self._attached.buffer
        # Ranks begin at 0 in each data-parallel engine.
        engine = self._worker.parallel_config.data_parallel_rank
        name = f"w{engine}.{self._worker.rank}-{attempt}"
        writer = ShardWriter(
            open_storage(lake), run_id, facts.num_experts, self._options.weight_precision
        )
        try:
            check_runner(self._worker.model_runner)
            once = self._write_routers(writer, name) if first and engine == 0 else []
        except Exception as error:  # noqa: BLE001 - the driver raises it
            return {"error": describe_error(error)}
        self._collector = Collector(
            writer,
            buffer.row_format,
            facts.layer_ids,
            name,
            tokens=self._is_first_stage,
            wake_rows=self._drain.max_rows,
            once=once,
        )
        self._collector.start()
        self._stop_watching = watch_steps(
            self._worker.model_runner, buffer, self._drain, self._collector.receive
        )
        return None

    def _write_routers(self, writer: ShardWriter, name: str) -> list[ShardFile]:
        if not self._options.router_weights or self._attached is None:
            return []
        weights = read_router_weights(self._gates, self._attached.runners)
        return [writer.write_routers(f"routers-{name}", weights)]

    def seal(self, batch: int, finished: Sequence[Sequence[Any]]) -> Any:
        """Queue the batch for writing. ``finished`` holds the fields of ``FinishedRequest``."""
        return self._answer(
            lambda collector: collector.seal(batch, [FinishedRequest(*item) for item in finished])
        )

    def discard(self, engine_ids: Sequence[str]) -> Any:
        """Forget the rows of requests the engine gave up."""
        return self._answer(lambda collector: collector.discard(engine_ids))

    def collect(self, wait: bool) -> Any:
        """Shards written since the last call, or the error that stopped the writer.

        ``cached`` names the requests whose prompt tokens without rows are another number than
        the engine said.
        """
        return self._answer(
            lambda collector: {
                "written": [
                    [number, [file.to_dict() for file in files]]
                    for number, files in collector.take_written(wait=wait).items()
                ],
                "cached": collector.take_cached(),
            }
        )

    def _answer(self, call: Callable[[Collector], Any]) -> Any:
        if self._collector is None:
            return None
        try:
            return call(self._collector)
        except Exception as error:  # noqa: BLE001 - the driver raises it
            return {"error": describe_error(error)}

    def stop(self) -> None:
        """Stop recording; the hooks stay, in CUDA graphs too, and ``begin`` may follow."""
        if self._stop_watching is not None:
            self._stop_watching()
            self._stop_watching = None
        if self._collector is not None:
            self._collector.stop()
            self._collector = None

    def end(self) -> None:
        """Stop recording, take the hooks out and give the memory of the slots back."""
        self.stop()
        if self._drain is not None:
            self._drain.close()
            self._drain = None
        self.detach()
