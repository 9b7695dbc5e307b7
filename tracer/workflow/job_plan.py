"""What a job would do and why, without an engine and without writing anything."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tracer.errors import TracerError
from tracer.store.lake import Lake
from tracer.workflow.job import stored_run
from tracer.workflow.job_combination import Combination, chosen, combinations, name_run
from tracer.workflow.job_file import JobFile
from tracer.workflow.job_of_run import JobRun
from tracer.workflow.job_retention import expired_runs
from tracer.workflow.job_steps import step_names, steps_of, why_to_do

__all__ = ["PlannedStep", "plan_job"]


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """A step of a combination.

    action: do, resume, skip (done already), or fail (cannot begin); why: the reason
    """

    number: int
    model: str
    dataset: str
    run_id: str | None
    step: str
    action: str
    why: str

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


def plan_job(
    job: JobFile,
    *,
    lake_path: Path | str | None = None,
    only: Sequence[str] = (),
    period: str | None = None,
) -> list[PlannedStep]:
    """Every step of every combination, in the order that they would be taken.

    Raises:
        InputError: no such combination or period, or a lake that cannot be used.
    """
    target = lake_path or job.lake
    wanted = chosen(combinations(job, period), only)
    Lake.check_usable(target)
    return [step for combination in wanted for step in _planned(job, combination, target)]


def _planned(job: JobFile, combination: Combination, target: Path | str) -> list[PlannedStep]:
    run_id: str | None = None

    def step(name: str, action: str, why: str) -> PlannedStep:
        place = combination.number, combination.model, combination.dataset
        return PlannedStep(*place, run_id, name, action, why)

    try:
        named = name_run(combination)
        run_id = named.run_id
        row = stored_run(target, named)
        if row is None or row["status"] != "complete":
            names = [*step_names(job), *["retention"] * (job.retention is not None)]
            if row is None:
                first = step("capture", "do", f"no run {run_id} yet, {named.num_requests} requests")
            else:
                there = len(Lake.open(target).request_status(run_id))
                counted = f"{there} of {named.num_requests} requests are there"
                first = step("capture", "resume", counted)
            return [first, *(step(name, "do", "after the capture") for name in names)]
        run = JobRun.of(Lake.open(target), job, combination, run_id)
        found = [step("capture", "skip", "the run is complete")]
        for one in steps_of(run):
            why = why_to_do(one, run.record)
            found.append(step(one.name, "do" if why else "skip", why or "done"))
        if job.retention is not None:
            old = expired_runs(run, job.retention)
            why = f"removes {', '.join(old)}" if old else "nothing to remove"
            found.append(step("retention", "do" if old else "skip", why))
    except (TracerError, OSError) as error:
        return [step("capture", "fail", str(error))]
    return found
