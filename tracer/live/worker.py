"""Capture of live traffic in one vLLM worker: attaches at load, records until the worker ends.

Nobody calls it. What cannot be captured is served and not recorded: the status says why.
"""

import atexit
import logging
import os
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from tracer.capture import engine_setup
from tracer.capture.attach import Attached, attach, join_peers
from tracer.capture.drain import Drain
from tracer.capture.manifest import CaptureRequest, describe_run, describe_settings
from tracer.capture.prompts import load_tokenizer
from tracer.capture.record_options import RecordOptions
from tracer.capture.steps import check_runner
from tracer.errors import InputError, TracerError, UnsupportedModelError, first_line
from tracer.live.batch import LiveRequest
from tracer.live.choose import Chooser
from tracer.live.config import LiveConfig, load_config
from tracer.live.intake import Intake, watch_traffic
from tracer.live.messages import Tick
from tracer.live.plugin import STOP_SECONDS
from tracer.live.recorder import Recorder
from tracer.live.runs import DATASET, LiveRuns, period_of
from tracer.live.status import ControlReader, Counts, write_status
from tracer.live.threads import cores_of_this_thread, free_thread
from tracer.live.warm_up import warm_up
from tracer.live.writer import ABORTED, LakeWriter

__all__ = ["LiveCapture", "install_live"]

_TICK_SECONDS = 1.0
_MB = 1_000_000

_logger = logging.getLogger("vllm.moe_tracer")


def install_live(worker: Any, options: Mapping[str, Any]) -> None:
    """Have a vLLM worker record once its model is loaded, and stop before it ends."""
    config = load_config(os.environ)
    if config is None:  # the front end had a configuration that this process did not inherit
        _logger.error("moe-tracer: no TRACER_LIVE here: nothing will be recorded")
        return
    capture = LiveCapture(worker, config, options)
    load_model, shutdown = worker.load_model, worker.shutdown

    def load_and_attach(*args: Any, **kwargs: Any) -> Any:
        result = load_model(*args, **kwargs)
        capture.begin()
        return result

    def stop_and_shut_down(*args: Any, **kwargs: Any) -> Any:
        capture.end()
        return shutdown(*args, **kwargs)

    worker.load_model = load_and_attach
    worker.shutdown = stop_and_shut_down
    atexit.register(capture.end)


class LiveCapture:
    """What one worker holds. Of a tensor-parallel group the first rank records."""

    def __init__(self, worker: Any, config: LiveConfig, options: Mapping[str, Any]) -> None:
        self._worker = worker
        self._config = config
        self._options = options
        # Counted from several threads.
        self._lock = threading.Lock()
        self._counts = Counts(
            queue_limit_bytes=config.queue_mb * _MB,
            recording=config.recording,
            rate=config.rate,
            config=config.public(),
        )
        self._chooser = Chooser(config, self._counts)
        self._control = ControlReader(config.control_folder)
        self._attached: Attached | None = None
        self._intake: Intake | None = None
        self._recorder: Recorder | None = None
        self._writer: LakeWriter | None = None
        self._stop_watching: Callable[[], None] | None = None
        self._over = False  # nothing will be recorded any more
        self._unwritten: str | None = None  # why the last status could not be written
        self._ending = threading.Event()
        self._cores = cores_of_this_thread()
        self._keeper = free_thread(self._keep, "tracer-live-status", self._cores)

    def begin(self) -> None:
        """Attach and start recording; a refusal is logged and stands in the status."""
        try:
            if int(self._worker.rank) % int(self._worker.parallel_config.tensor_parallel_size):
                self._join()
                return
            self._start()
            _logger.info("moe-tracer: recording into %s", self._config.lake)
        except Exception as error:  # noqa: BLE001 - serving goes on
            self._refuse(error)
        self._write_status()
        self._keeper.start()

    def _join(self) -> None:
        """Take part in what the first rank gathers; the status is its own.

        Where that one was refused it gathers nothing, and a peer that did would wait for ever.
        """
        if self._options.get("refusal"):
            return
        try:
            join_peers(self._worker.model_runner.get_model(), self._worker.vllm_config)
        except Exception as error:  # noqa: BLE001 - serving goes on
            _logger.error("moe-tracer: rank %s: %s", self._worker.rank, error)  # noqa: TRY400

    def _start(self) -> None:
        if refusal := self._options.get("refusal"):
            raise UnsupportedModelError(str(refusal), "")
        worker = self._worker
        runner, device = worker.model_runner, worker.device
        check_runner(runner)
        record = RecordOptions.from_dict(self._options)
        attached = self._attached = attach(
            runner.get_model(), worker.vllm_config, runner.max_num_tokens, device, record
        )
        buffer, facts = attached.buffer, attached.facts
        drain = Drain(buffer.row_format.row_bytes, len(buffer.storage), device)
        # Compiles the loops that write shards: later it would hold up the engine's thread.
        warm_up(buffer.row_format, facts.layer_ids, facts.num_experts, record.weight_precision)
        runs = LiveRuns(
            self._config,
            self._describe(attached),
            {"config": self._config.public()},
            self._tally,
        )
        texts = self._texts() if self._config.text else None
        self._writer = LakeWriter(
            self._config,
            runs,
            row_format=buffer.row_format,
            layer_ids=facts.layer_ids,
            worker=f"w{worker.rank}-{secrets.token_hex(3)}",
            counts=self._counts,
            drop=self._drop,
            period_now=lambda: self._period_of(time.time()),
            texts=texts,
            cores=self._cores,
        )
        self._recorder = Recorder(
            buffer.row_format,
            facts.top_k,
            self._writer,
            limit_bytes=self._config.queue_mb * _MB,
            seal_seconds=self._config.seal_seconds,
            period_of=self._period_of,
            wake_rows=drain.max_rows,
            drop=self._drop,
            forget=self._forget,
            hash_key=self._config.hash_key(),
            failed=self._failed,
            cores=self._cores,
        )
        self._intake = Intake(self._chooser, self._recorder, self._drop)
        self._intake.recording = self._config.recording
        self._obey()
        self._writer.start()
        self._recorder.start()
        self._stop_watching = watch_traffic(runner, buffer, drain, self._intake, self._failed)

    def _describe(self, attached: Attached) -> dict[str, Any]:
        """The row of `runs` but for name and times."""
        config = self._worker.vllm_config
        request = CaptureRequest(config.model_config.model, run_id=self._config.name)
        identity = engine_setup.find_engine(allow_untested=True)
        settings = describe_settings(request, DATASET, "", identity, config)
        settings |= {"dataset_digest": None, "max_tokens": None}
        model = {
            **attached.facts.to_dict(),
            "runner": type(self._worker.model_runner).__name__,
        }
        return describe_run(settings, config, model)

    def _texts(self) -> Callable[[LiveRequest], tuple[str, str]]:
        tokenizer = load_tokenizer(self._worker.vllm_config.model_config)

        def texts(request: LiveRequest) -> tuple[str, str]:
            tokens = request.finished.token_ids
            cut = request.finished.num_prompt_tokens
            return tokenizer.decode(tokens[:cut]), tokenizer.decode(
                tokens[cut:], skip_special_tokens=True
            )

        return texts

    def _tally(self) -> dict[str, int]:
        """Dropped requests by reason, but those that are listed as aborted."""
        with self._lock:
            return {why: count for why, count in self._counts.dropped.items() if why != ABORTED}

    def _period_of(self, seconds: float) -> str:
        return period_of(seconds, self._config.run_hours)

    def _drop(self, reason: str, requests: int) -> None:
        with self._lock:
            self._counts.drop(reason, requests)

    def _forget(self, request_id: str) -> None:
        if self._intake is not None:
            self._intake.forget(request_id)

    def _failed(self, error: BaseException) -> None:
        """Recording is over, serving is not; who failed has counted what is lost."""
        if self._intake is not None:
            self._intake.give_up()
        self._refuse(error)

    def _refuse(self, error: BaseException) -> None:
        self._over = True
        self._counts.recording = False
        self._counts.last_error = f"not recording: {type(error).__name__}: {first_line(error)}"[
            :500
        ]
        _logger.error("moe-tracer: %s", self._counts.last_error)

    def _keep(self) -> None:
        """Once a second: obey commands, wake the recorder, write the status."""
        while not self._ending.wait(_TICK_SECONDS):
            try:
                self._obey()
                if self._recorder is not None:
                    self._recorder.put(Tick())
                self._write_status()
            except Exception as error:  # noqa: BLE001 - without ticks nothing would be sealed
                self._counts.last_error = f"{type(error).__name__}: {first_line(error)}"[:500]

    def _obey(self) -> None:
        try:
            command = self._control.poll()
        except InputError as error:
            self._counts.last_error = first_line(error)
            return
        if command is None:
            return
        # After a refusal or a failure the answer is that nothing is recorded, and why.
        if self._intake is not None and not self._over:
            self._intake.recording = self._counts.recording = command.recording
            self._counts.last_error = None
            self._chooser.set_rate(command.rate)
            self._counts.rate = self._config.rate if command.rate is None else command.rate
        self._counts.control_id = command.control_id

    def _write_status(self) -> None:
        self._counts.queue_bytes = self._recorder.host_bytes if self._recorder is not None else 0
        try:
            write_status(self._config.control_folder, self._counts)
        except (TracerError, OSError, RuntimeError) as error:  # a full disk; counts being changed
            self._unwritten = self._counts.last_error = first_line(error)
        else:  # it is over; another error that came meanwhile stays
            if self._unwritten is not None and self._counts.last_error == self._unwritten:
                self._counts.last_error = None
            self._unwritten = None

    def end(self) -> None:
        """Seal and commit what is finished, close the run; once, within ``STOP_SECONDS``."""
        if self._ending.is_set():
            return
        self._ending.set()
        if self._stop_watching is not None:
            self._stop_watching()
        if self._recorder is not None and self._writer is not None:
            began = time.monotonic()
            self._recorder.close()
            if self._writer.close(STOP_SECONDS - 8):
                _logger.info("moe-tracer: run closed in %.1f s", time.monotonic() - began)
            else:
                _logger.error("moe-tracer: the last rows could not be written in time")
        self._counts.recording = False
        self._write_status()
