"""The steps of a job after the capture of one run: verify, compact, audit, compare, report.

Each is a value: a name, what its result is made of, and the work. So a plan can tell what is done
without doing anything, and other schedulers can call a step by itself.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from tracer import __version__
from tracer.workflow.job_file import JobFile
from tracer.workflow.job_of_run import JobRun
from tracer.workflow.job_records import Record, finished
from tracer.workflow.job_work import (
    audit_work,
    compact_work,
    compare_work,
    report_work,
    verify_work,
)

__all__ = ["Step", "step_names", "steps_of", "take_step", "why_to_do"]


@dataclass(frozen=True, slots=True)
class Step:
    """One step of one run.

    state: what its result is made of, as text; the same state gives the same result
    output: the file that it writes, if any
    work: does it; what it returns goes into the record and the summary, with `passed` and, where
        that is false, `why`
    """

    name: str
    state: dict[str, str]
    output: Path | None
    work: Callable[[], dict[str, Any]]


def steps_of(run: JobRun) -> list[Step]:
    """Every step after the capture that the job asks for, in order."""
    job = run.job
    # Of the last record, since a compared run may have been captured again under its name.
    base = {"run": f"{run.run_id} {run.record.finished_at}", "version": __version__}
    steps = [Step("verify", {**base, **_said(job.verify)}, None, lambda: verify_work(run))]
    if job.retention is not None and job.retention.compact:
        steps.append(Step("compact", base, None, lambda: compact_work(run)))
    for number, one in enumerate(job.audit_steps, start=1):
        output = run.combination.output(one.output, run.run_id)
        name = "audit" if len(job.audit_steps) == 1 else f"audit {number}"
        state = {**base, **_said(one), "output": str(output)}
        steps.append(Step(name, state, output, audit_work(run, one, output)))
    compared: dict[str, str] = {}
    if job.drift is not None:
        other = run.lake.run(run.baseline) if run.baseline else None
        against = f"{run.baseline} {finished(other)}" if other else ""
        compared = {**base, **_said(job.drift), "against": against}
        steps.append(Step("compare", compared, None, compare_work(run, job.drift)))
    if job.report is not None:
        output = run.combination.output(job.report.output, run.run_id)
        state = {
            **base,
            **_said(job.report),
            "output": str(output),
            "compared": json.dumps(compared),
        }
        steps.append(Step("report", state, output, report_work(run, job.report, output)))
    return steps


def step_names(job: JobFile) -> list[str]:
    """Names of ``steps_of`` any run of the job."""
    audits = len(job.audit_steps)
    return [
        "verify",
        *["compact"] * (job.retention is not None and job.retention.compact),
        *(["audit"] if audits == 1 else [f"audit {n}" for n in range(1, audits + 1)]),
        *["compare"] * (job.drift is not None),
        *["report"] * (job.report is not None),
    ]


def why_to_do(step: Step, record: Record) -> str | None:
    """Why a step is to be done; None where it is done."""
    noted = record.steps.get(step.name)
    if noted is None:
        return "not done yet"
    if noted["state"] != step.state:
        return "the run, the job file or the program changed"
    if step.output is not None and not step.output.exists():
        return f"{step.output} is gone"
    return None


def take_step(run: JobRun, step: Step) -> dict[str, Any]:
    """Do a step unless it is done.

    Returns:
        What it found, with `status`: done, or skipped where it had been done before.

    Raises:
        TracerError: of any kind the step raises; the step is not noted as done.
    """
    if why_to_do(step, run.record) is None:
        return {"status": "skipped", **run.record.steps[step.name]["result"]}
    if run.record.steps.pop(step.name, None) is not None or run.record.good:
        run.record.good = False  # until it is judged again
        run.records.save(run.record)
    result = step.work()
    if step.output is not None:
        result = {"output": str(step.output), **result}
    run.record.steps[step.name] = {"state": step.state, "result": result}
    run.records.save(run.record)
    return {"status": "done", **result}


def _said(part: BaseModel) -> dict[str, str]:
    """What a part of the job file says, and the text of the file of domains that it names."""
    domains: Path | None = getattr(part, "domains", None)
    texts = part.model_dump_json() + (domains.read_text(encoding="utf-8") if domains else "")
    return {"step": hashlib.sha256(texts.encode()).hexdigest()[:16]}
