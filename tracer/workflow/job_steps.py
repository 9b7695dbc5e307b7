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
from tracer.analysis.audit import audit
from tracer.analysis.drift import compare_runs
from tracer.analysis.measures.run import Settings
from tracer.analysis.verdicts import agreement_verdict, differences_verdict
from tracer.domain_map import load_domains
from tracer.errors import DamagedDataError
from tracer.files import write_whole
from tracer.records import Audit, audit_draws
from tracer.report.audit_text import render_csv, render_json, render_table
from tracer.store.compact import compact_run
from tracer.store.lake import Lake
from tracer.workflow.drift_limits import limits_of
from tracer.workflow.job_combination import Combination
from tracer.workflow.job_file import AuditStep, DriftStep, JobFile, ReportStep
from tracer.workflow.job_records import Record, Records, finished
from tracer.workflow.report import write_report
from tracer.workflow.verify import verify_lake

__all__ = ["JobRun", "Step", "steps_of", "take_step", "why_to_do"]

_RENDER = {"json": render_json, "csv": render_csv, "table": render_table}
_CLAIMS = {
    "agreement": agreement_verdict(0.0, possible=True),
    "differences": differences_verdict(0.0, possible=True),
}


@dataclass(frozen=True, slots=True)
class JobRun:
    """A complete run of a job, to be looked at.

    row: of `runs`; baseline: the run that it is compared with, if there is one
    """

    lake: Lake
    job: JobFile
    combination: Combination
    row: dict[str, Any]
    records: Records
    record: Record
    baseline: str | None

    @property
    def run_id(self) -> str:
        """Of the run."""
        return str(self.row["run_id"])

    @classmethod
    def of(cls, lake: Lake, job: JobFile, combination: Combination, run_id: str) -> "JobRun":
        """The run with what the job remembers of it.

        Raises:
            UnknownRunError: no such run, or `drift.against` names none.
        """
        row = lake.run(run_id)
        records = Records(lake, combination.job)
        record = records.of(run_id)
        names = combination.model, combination.dataset
        if record is None or record.finished_at != finished(row):
            record = Record(run_id, *names, combination.period, finished(row))
        baseline = None
        if job.drift is not None and job.drift.against != "last-good":
            baseline = str(lake.run(job.drift.against)["run_id"])
        elif job.drift is not None:
            baseline = records.last_good(*names, row)
        return cls(
            lake, job, combination, row, records, record, None if baseline == run_id else baseline
        )


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
    steps = [Step("verify", {**base, **_said(job.verify)}, None, lambda: _verify(run))]
    if job.retention is not None and job.retention.compact:
        steps.append(Step("compact", base, None, lambda: _compact(run)))
    for number, one in enumerate(job.audit_steps, start=1):
        output = run.combination.output(one.output, run.run_id)
        name = "audit" if len(job.audit_steps) == 1 else f"audit {number}"
        state = {**base, **_said(one), "output": str(output)}
        steps.append(Step(name, state, output, _audit_work(run, one, output)))
    compared: dict[str, str] = {}
    if job.drift is not None:
        other = run.lake.run(run.baseline) if run.baseline else None
        against = f"{run.baseline} {finished(other)}" if other else ""
        compared = {**base, **_said(job.drift), "against": against}
        steps.append(Step("compare", compared, None, _compare_work(run, job.drift)))
    if job.report is not None:
        output = run.combination.output(job.report.output, run.run_id)
        state = {
            **base,
            **_said(job.report),
            "output": str(output),
            "compared": json.dumps(compared),
        }
        steps.append(Step("report", state, output, _report_work(run, job.report, output)))
    return steps


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


def _verify(run: JobRun) -> dict[str, Any]:
    found = verify_lake(run.lake, run.run_id, repair=False, checked=lambda _name: None)
    if found.faults:
        first = found.faults[0]
        raise DamagedDataError(
            f"run {run.run_id!r} has {len(found.faults)} faults, the first in {first.path}:"
            f" {first.detail}",
            f"`tracer verify --run {run.run_id}` lists them.",
        )
    statuses = list(run.lake.request_status(run.run_id).values())
    dropped = sum(status != "complete" for status in statuses)
    share = dropped / (len(statuses) or 1)
    most = run.job.verify.max_dropped
    result: dict[str, Any] = {"num_files": found.num_files, "requests": len(statuses)}
    result |= {"dropped": dropped, "dropped_share": share, "passed": most is None or share <= most}
    if not result["passed"]:
        result["why"] = f"{dropped} of {len(statuses)} requests are missing, at most {most:.1%} may"
    return result


def _compact(run: JobRun) -> dict[str, Any]:
    merged = compact_run(run.lake, run.run_id, lambda _table: None)
    return {"files_before": merged.before, "files_after": merged.after, "passed": True}


def _audit_work(run: JobRun, step: AuditStep, output: Path) -> Callable[[], dict[str, Any]]:
    def work() -> dict[str, Any]:
        found = audit(
            run.lake,
            run_id=run.run_id,
            mode=step.mode,
            tokens=step.tokens,
            min_presence=step.min_presence,
            rank_cutoff=step.rank_cutoff,
            domains=load_domains(step.domains) if step.domains else None,
            allow_missing_tokens=step.allow_missing_tokens,
            draws=audit_draws(step.mode) if step.draws is None else step.draws,
            seed=step.seed,
            same_token=step.same_token,
            exclude_template=step.exclude_template,
        )
        write_whole(output, _RENDER[step.format](found).encode())
        return _judged(found, step)

    return work


def _judged(found: Audit, step: AuditStep) -> dict[str, Any]:
    verdicts = {
        name: getattr(found.chance, name) if found.chance else "no draws, no verdict"
        for name in _CLAIMS
    }
    short = [name for name in step.require if verdicts[name] != _CLAIMS[name]]
    result: dict[str, Any] = {**verdicts, "passed": not short}
    if short:
        result["why"] = "; ".join(f"{name}: {verdicts[name]}" for name in short)
    return result


def _compare_work(run: JobRun, step: DriftStep) -> Callable[[], dict[str, Any]]:
    def work() -> dict[str, Any]:
        if run.baseline is None:
            return {"against": None, "passed": True}
        drift = compare_runs(
            run.lake,
            run.run_id,
            run.baseline,
            limits_of(step),
            alpha=step.alpha,
            settings=Settings(
                tokens=step.tokens,
                domains=load_domains(step.domains) if step.domains else None,
                exclude_template=step.exclude_template,
                draws=step.draws,
                seed=step.seed,
                level=step.level,
            ),
        )
        result = {**drift.to_dict(), "passed": not drift.breaches}
        if drift.breaches:
            result["why"] = "; ".join(check.words for check in drift.breaches)
        return result

    return work


def _report_work(run: JobRun, step: ReportStep, output: Path) -> Callable[[], dict[str, Any]]:
    def work() -> dict[str, Any]:
        compared = run.record.steps.get("compare", {}).get("result")
        write_report(
            run.lake,
            run.run_id,
            output,
            min_presence=step.min_presence,
            domains=load_domains(step.domains) if step.domains else None,
            allow_missing_tokens=step.allow_missing_tokens,
            compare=run.baseline,
            drift=compared if run.baseline else None,
            draws=step.draws,
            seed=step.seed,
        )
        return {"passed": True}

    return work
