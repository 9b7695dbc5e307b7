"""Runs a job: every model with every dataset, each step once.

For one combination: capture, verify, audit, compare with the last good run, report, remove old
runs. A capture resumes by itself; what was found of its run is kept in the lake
(``job_records.py``). A combination that fails stops none of the others.
"""

import contextlib
import datetime
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tracer.capture.known_settings import differs
from tracer.errors import UNEXPECTED, InputError, NotALakeError, TracerError, UnknownRunError
from tracer.store.lake import Lake
from tracer.workflow.capture import capture_dataset
from tracer.workflow.job_combination import (
    Combination,
    NamedRun,
    chosen,
    combinations,
    name_run,
)
from tracer.workflow.job_file import JobFile
from tracer.workflow.job_lock import hold, hold_combination
from tracer.workflow.job_of_run import JobRun
from tracer.workflow.job_records import Record, Records, finished
from tracer.workflow.job_retention import remove_old_runs
from tracer.workflow.job_steps import steps_of, take_step, why_to_do

__all__ = [
    "BREACH",
    "CombinationResult",
    "accept_run",
    "capture_run",
    "judge_run",
    "look_at_run",
    "run_combination",
    "run_job",
    "stored_run",
]

BREACH = 1


@dataclass(slots=True)
class CombinationResult:
    """What became of one model with one dataset.

    status: passed; breached, where a limit was not kept; failed, where a step could not be done
    steps: by name what each found; error: of the step that failed
    """

    number: int
    model: str
    dataset: str
    run_id: str | None = None
    status: str = "passed"
    exit_code: int = 0
    good: bool = False
    steps: dict[str, dict[str, Any]] = field(default_factory=dict)
    breaches: list[str] = field(default_factory=list)
    error: dict[str, str | None] | None = None


def run_job(
    job: JobFile,
    *,
    lake_path: Path | str | None = None,
    only: Sequence[str] = (),
    period: str | None = None,
    verbose: bool = False,
    note: Callable[[str], None] = lambda _words: None,
) -> dict[str, Any]:
    """Do what is not done yet of every combination.

    Args:
        job: what to do.
        lake_path: another lake than the job file names.
        only: combinations by number or MODEL/DATASET; none takes all.
        period: another than the one that it is now.
        verbose: show the engine's log.
        note: told each step that begins.

    Returns:
        A summary that JSON can hold; `exit_code` is the highest of the combinations'.

    Raises:
        InputError: no such combination or period, a lake that cannot be used, or another start of
            the job is at one of the combinations.
    """
    target = lake_path or job.lake
    wanted = chosen(combinations(job, period), only)
    Lake.check_usable(target)
    with contextlib.ExitStack() as stack:
        for combination in wanted:
            hold_combination(target, combination, stack)
        results = [
            run_combination(job, combination, target, verbose=verbose, note=note)
            for combination in wanted
        ]
    exit_code = max(result.exit_code for result in results)
    return {
        "job": job.name,
        "period": wanted[0].period,
        "lake": str(target),
        "status": _status(exit_code),
        "exit_code": exit_code,
        "combinations": [asdict(result) for result in results],
    }


def run_combination(
    job: JobFile,
    combination: Combination,
    target: Path | str,
    *,
    verbose: bool = False,
    note: Callable[[str], None] = lambda _words: None,
) -> CombinationResult:
    """All steps of one combination; errors end up in the result."""
    result = CombinationResult(combination.number, combination.model, combination.dataset)
    try:
        note(f"{combination.title}: capture")
        named = name_run(combination)
        result.run_id = named.run_id
        result.steps["capture"] = capture_run(combination, named, target, verbose=verbose)
        look_at_run(JobRun.of(Lake.open(target), job, combination, named.run_id), result, note)
    except TracerError as error:
        _fail(result, str(error), error.hint, error.exit_code)
    except OSError as error:
        _fail(result, f"{error.filename or 'system'}: {error.strerror or error}", None, 2)
    except Exception as error:  # noqa: BLE001 - the other combinations go on
        traceback.print_exc(file=sys.stderr)
        _fail(result, f"unexpected {type(error).__name__}: {error}", None, UNEXPECTED)
    return result


def capture_run(
    combination: Combination, named: NamedRun, target: Path | str, *, verbose: bool = False
) -> dict[str, Any]:
    """Capture what is not captured yet; without an engine where the run is complete.

    Raises:
        TracerError: of any kind a capture raises.
    """
    stored = stored_run(target, named)
    # Before the capture, too, so that a run that never ends is known as the job's and expires.
    with contextlib.suppress(NotALakeError):
        _remember(Lake.open(target), combination, named.run_id)
    if stored is None or stored["status"] != "complete":
        captured = capture_dataset(
            named.request,
            combination.source,
            combination.dataset_options,
            target,
            verbose=verbose,
        )
        found = {"status": "done" if stored is None else "resumed", **captured}
    else:
        found = {"status": "skipped", "run_id": named.run_id}
    _remember(Lake.open(target), combination, named.run_id)
    return found


def _remember(lake: Lake, combination: Combination, run_id: str) -> None:
    records = Records(lake, combination.job)
    if records.of(run_id) is None:
        names = combination.model, combination.dataset
        records.save(Record(run_id, *names, combination.period))


def stored_run(target: Path | str, named: NamedRun) -> dict[str, Any] | None:
    """The run's row if the lake has the run; None where it, or the lake, is not there.

    Raises:
        InputError: a run of that name was made with other settings.
    """
    try:
        row = Lake.open(target).run(named.run_id)
    except (NotALakeError, UnknownRunError):
        return None
    if different := differs(row, named.settings):
        raise InputError(
            f"run {named.run_id!r} was made with other settings: {', '.join(different)}",
            "put {settings} into `options.run_id`, or remove the run with `tracer delete`.",
        )
    return row


def look_at_run(
    run: JobRun, result: CombinationResult, note: Callable[[str], None] = lambda _words: None
) -> None:
    """Take every step after the capture, judge the run, remove old ones; fills ``result``.

    Raises:
        TracerError: of any kind a step raises.
    """
    for step in steps_of(run):
        note(f"{run.combination.title}: {step.name}")
        result.steps[step.name] = take_step(run, step)
    result.good, result.breaches = judge_run(run)
    if not result.good:
        result.status, result.exit_code = "breached", BREACH
    if run.job.retention is not None:
        note(f"{run.combination.title}: retention")
        result.steps["retention"] = remove_old_runs(run, run.job.retention)


def judge_run(run: JobRun) -> tuple[bool, list[str]]:
    """Call the run good if every step passed or somebody accepted it; what did not pass in words.

    Raises:
        InputError: a step is not done.
    """
    breaches = []
    for step in steps_of(run):
        if why_to_do(step, run.record):
            raise InputError(f"{step.name} of run {run.run_id!r} is not done", "run it first.")
        found = run.record.steps[step.name]["result"]
        if not found["passed"]:
            breaches.append(f"{step.name}: {found['why']}")
    good = not breaches or "accepted" in run.record.steps
    if run.record.good != good:
        run.record.good = good
        run.records.save(run.record)
    return good, breaches


def accept_run(job: JobFile, run_id: str, lake_path: Path | str | None = None) -> None:
    """Call a run good that went beyond limits, so that later ones are compared with it.

    Raises:
        UnknownRunError: no such run.
        InputError: the run is not of this job, or not complete, or the job is at work on it.
    """
    lake = Lake.open(lake_path or job.lake)
    row = lake.run(run_id)
    records = Records(lake, str(job.name))
    with contextlib.ExitStack() as stack:
        if (known := records.of(run_id)) is not None:
            # Or a step that ends at this moment would write a record without the word.
            hold(lake_path or job.lake, (str(job.name), known.model, known.dataset), stack)
        record = records.of(run_id)
        if record is None or not record.finished_at or record.finished_at != finished(row):
            raise InputError(
                f"job {job.name!r} has not looked at run {run_id!r}",
                "`tracer job run` does; then it can be accepted.",
            )
        when = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        record.steps["accepted"] = {"state": {"at": when}, "result": {}}
        record.good = True
        records.save(record)


def _fail(result: CombinationResult, message: str, hint: str | None, exit_code: int) -> None:
    result.status, result.exit_code = "failed", exit_code
    result.error = {"message": message, "hint": hint}


def _status(exit_code: int) -> str:
    return {0: "passed", BREACH: "breached"}.get(exit_code, "failed")
