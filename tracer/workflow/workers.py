"""A capture in shares, each a task of Ray: on the processes of one machine or of a cluster.

A task is what ``tracer capture --shard I/N`` is, in a process of Ray's: it opens an engine of its
own on the GPUs that Ray gave it, and commits to the lake by itself. So nothing is lost with a
process that dies: Ray starts the task again, and that goes on with what the lake lacks.
"""

import contextlib
import os
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tracer.capture.manifest import CaptureRequest
from tracer.datasets.loader import load_dataset
from tracer.datasets.options import DatasetOptions
from tracer.errors import (
    UNEXPECTED,
    EngineFailedError,
    InputError,
    MissingLibraryError,
    TracerError,
    describe_error,
    first_line,
)
from tracer.store.lake import Lake
from tracer.store.lake_location import is_url
from tracer.store.shares import Share
from tracer.workflow.capture import capture_dataset
from tracer.workflow.progress import CaptureProgress, engine_log
from tracer.workflow.worker_board import Board, Reporter, Totals

__all__ = ["capture_with_workers"]

# Starts of a share after its process died, before that is an error.
_RESTARTS = 3
# Tries to start Ray: it gives its own processes 15 s, which on a busy machine can be too few.
_STARTS = 3
_LOOK_EVERY = 1.0
# For tasks to end by themselves after Ctrl-C, before their processes are killed.
_GRACE = 20.0


def capture_with_workers(
    request: CaptureRequest,
    dataset: str,
    options: DatasetOptions,
    lake_path: Path | str,
    workers: int,
    *,
    gpus: float | None = None,
) -> dict[str, Any]:
    """Record a dataset in ``workers`` shares at once.

    Args:
        request: what to capture.
        dataset: its name.
        options: how to read it.
        lake_path: where to; on several machines a bucket, or a folder that all of them see.
        workers: how many shares, and most tasks at a time.
        gpus: that each asks Ray for; None takes one where there are any.

    Returns:
        As ``capture_dataset``: counts of the run, bytes of all shares.

    Raises:
        MissingLibraryError: ray is not installed.
        InputError: Ray does not start, or has no room for a worker.
        TracerError: of any kind a share raised; the other shares went on to their end.
    """
    ray = _import_ray()
    Share.parse(f"0/{workers}")
    request.check()
    Lake.check_usable(lake_path)
    # Here, too, so that what is wrong with it is told once, and at once.
    total = len(load_dataset(dataset, options).rows) * request.samples
    where = str(lake_path) if is_url(lake_path) else str(Path(lake_path).absolute())
    work = _Work(request, dataset, options, where, str(Path.cwd()))
    shares = [Share(index, workers) for index in range(workers)]
    began = time.perf_counter()
    with engine_log("ray", verbose=False) as (stream, log):
        progress = CaptureProgress(stream)
        try:
            with _ray_running(ray, gpus) as gpus_each:
                answers = _run(ray, work, shares, Totals(progress, total), gpus_each)
        except (TracerError, KeyboardInterrupt):
            if log is not None:
                log.unlink(missing_ok=True)
            raise
        finally:
            progress.close()
    failed = [(one, answers[one]["error"]) for one in shares if "error" in answers[one]]
    if failed:
        raise _first_of(failed, workers)
    return _together([answer["summary"] for answer in answers.values()], began)


@dataclass(frozen=True, slots=True)
class _Work:
    """What every share has in common. folder: that the command was given in."""

    request: CaptureRequest
    dataset: str
    options: DatasetOptions
    lake_path: str
    folder: str


def _capture_share(work: _Work, share: Share, board: Any) -> dict[str, Any]:
    """The task: a capture of one share. An error is an answer, since Ray would wrap it."""
    # Processes of Ray's have threads, with which a fork is not safe.
    os.environ["VLLM_WORKER_MULTIPROC_METHOD"] = "spawn"
    host = socket.gethostname()
    try:
        try:
            os.chdir(work.folder)
        except OSError as error:
            raise InputError(
                f"there is no folder {work.folder} on {host}",
                "workers need the folder that the command was given in, at the same path.",
            ) from error
        with Reporter(board, share.index) as progress:
            summary = capture_dataset(
                work.request,
                work.dataset,
                work.options,
                work.lake_path,
                share=share,
                progress=progress,
            )
    except TracerError as error:
        return {"error": {**describe_error(error), "host": host}}
    except OSError as error:  # a full disk, say, in the words of the command line
        told = InputError(f"{error.filename or 'system'}: {error.strerror or error}")
        return {"error": {**describe_error(told), "host": host}}
    return {"summary": summary}


def _run(
    ray: Any,
    work: _Work,
    shares: Sequence[Share],
    totals: Totals,
    gpus: float,
) -> dict[Share, dict[str, Any]]:
    """The answers of all shares, with progress meanwhile; Ctrl-C ends them."""
    board = ray.remote(Board).options(num_cpus=0).remote(len(shares))
    task = ray.remote(
        num_cpus=1,
        num_gpus=gpus,
        max_retries=_RESTARTS,
        max_calls=1,  # an engine leaves more behind in a process than it takes away
    )(_capture_share)
    tasks = {task.remote(work, share, board): share for share in shares}
    answers: dict[Share, dict[str, Any]] = {}
    waiting = list(tasks)
    try:
        while waiting:
            ready, waiting = ray.wait(waiting, num_returns=len(waiting), timeout=_LOOK_EVERY)
            for one in ready:
                answers[tasks[one]] = _answer(ray, one)
            with contextlib.suppress(ray.exceptions.RayError):
                totals.show(ray.get(board.read.remote(), timeout=_LOOK_EVERY))
    except BaseException:
        _cancel(ray, waiting)
        raise
    return answers


def _answer(ray: Any, task: Any) -> dict[str, Any]:
    try:
        answer: dict[str, Any] = ray.get(task)
    except ray.exceptions.RayTaskError as error:  # of the code, which Ray does not try again
        told = TracerError(f"unexpected {type(error.cause).__name__}: {first_line(error.cause)}")
        return {"error": {**describe_error(told), "exit_code": UNEXPECTED, "host": ""}}
    except ray.exceptions.RayError as error:
        reason = f"its process died {_RESTARTS + 1} times: {first_line(error)}"
        return {"error": {**describe_error(EngineFailedError("in a worker", reason)), "host": ""}}
    return answer


def _cancel(ray: Any, tasks: list[Any]) -> None:
    """Interrupt tasks as Ctrl-C would; kill the processes of those that do not end."""
    for force in (False, True):
        for task in tasks:
            with contextlib.suppress(ray.exceptions.RayError, ValueError):
                ray.cancel(task, force=force)
        _, tasks = ray.wait(tasks, num_returns=len(tasks), timeout=_GRACE) if tasks else ([], [])


def _first_of(failed: list[tuple[Share, dict[str, Any]]], workers: int) -> TracerError:
    """The first error of several shares, as an error that names the share."""
    share, error = failed[0]
    where = f" on {error['host']}" if error["host"] else ""
    more = f"; {len(failed)} of {workers} shares failed" if len(failed) > 1 else ""
    told = TracerError(
        f"share {share}{where}: {error['message']}{more}",
        error["hint"] or "the same command goes on where the shares stopped.",
    )
    told.exit_code = error["exit_code"] or 3
    return told


def _together(summaries: list[dict[str, Any]], began: float) -> dict[str, Any]:
    """One summary of all shares; whoever ended last counted the whole run."""
    seconds = time.perf_counter() - began
    whole = max(summaries, key=lambda summary: (summary["run_status"], summary["num_rows"]))
    whole = next((one for one in summaries if one["run_status"] == "complete"), whole)
    tokens = sum(one["tokens_per_s"] * one["seconds"] for one in summaries)
    return {
        **whole,
        "resumed_requests": sum(one["resumed_requests"] for one in summaries),
        "bytes_written": sum(one["bytes_written"] for one in summaries),
        "seconds": seconds,
        "tokens_per_s": tokens / seconds,
        "share": None,
    }


@contextmanager
def _ray_running(ray: Any, gpus: float | None) -> Iterator[float]:
    """Ray, joined or started here; yields the GPUs that each worker asks for."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    mine = not ray.is_initialized()
    if mine:
        _start(ray)
    try:
        yield _gpus_each(ray, gpus)
    finally:
        if mine:
            ray.shutdown()


def _start(ray: Any) -> None:
    # Else Ray joins what a file in its temporary folder names, which may have ended long ago.
    address = os.environ.get("RAY_ADDRESS") or "local"
    for left in reversed(range(_STARTS)):
        try:
            ray.init(address, log_to_driver=False, include_dashboard=False, logging_level="error")
        except Exception as error:
            ray.shutdown()
            if left and "timed out" in str(error):
                continue
            raise InputError(
                f"Ray does not start: {first_line(error)}",
                "RAY_ADDRESS names a cluster that runs, without it one is started here; where it"
                " asks for a token, RAY_AUTH_MODE=token shows yours.",
            ) from error
        return


def _gpus_each(ray: Any, gpus: float | None) -> float:
    nodes = [node["Resources"].get("GPU", 0.0) for node in ray.nodes() if node["Alive"]]
    most = max(nodes, default=0.0)
    if gpus is None:
        return 1.0 if most else 0.0
    if gpus > most:
        raise InputError(
            f"a worker asks for {gpus:g} GPUs, and no machine of Ray's has more than {most:g}",
            "lower --gpus-per-worker, or RAY_ADDRESS names another cluster.",
        )
    return gpus


def _import_ray() -> Any:
    try:
        import ray
        import ray.exceptions
    except ImportError as error:
        raise MissingLibraryError("ray", "ray") from error
    return ray
