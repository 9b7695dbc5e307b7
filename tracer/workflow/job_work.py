"""The work of a job's steps on one run; each returns what it found, with `passed` and `why`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

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
from tracer.workflow.drift_limits import limits_of
from tracer.workflow.job_file import AuditStep, DriftStep, ReportStep
from tracer.workflow.job_of_run import JobRun
from tracer.workflow.report import write_report
from tracer.workflow.verify import verify_lake

__all__ = ["audit_work", "compact_work", "compare_work", "report_work", "verify_work"]

_RENDER = {"json": render_json, "csv": render_csv, "table": render_table}
_CLAIMS = {
    "agreement": agreement_verdict(0.0, possible=True),
    "differences": differences_verdict(0.0, possible=True),
}


def verify_work(run: JobRun) -> dict[str, Any]:
    """Check files and rows, and how many requests are missing.

    Raises:
        DamagedDataError: the run has faults.
    """
    found = verify_lake(run.lake, run.run_id, repair=False, checked=lambda _name: None)
    if found.faults:
        first = found.faults[0]
        raise DamagedDataError(
            f"run {run.run_id!r} has {len(found.faults)} faults, the first in {first.path}:"
            f" {first.detail}",
            f"`tracer verify --run {run.run_id}` lists them.",
        )
    statuses = list(run.lake.request_status(run.run_id).values())
    # Not those that the dataset keeps from being recorded.
    dropped = sum(status in ("skipped", "aborted") for status in statuses)
    share = dropped / (len(statuses) or 1)
    most = run.job.verify.max_dropped
    result: dict[str, Any] = {"num_files": found.num_files, "requests": len(statuses)}
    result |= {"dropped": dropped, "dropped_share": share, "passed": most is None or share <= most}
    if not result["passed"]:
        result["why"] = f"{dropped} of {len(statuses)} requests are missing, at most {most:.1%} may"
    return result


def compact_work(run: JobRun) -> dict[str, Any]:
    """Merge the small files of the run."""
    merged = compact_run(run.lake, run.run_id, lambda _table: None)
    return {"files_before": merged.before, "files_after": merged.after, "passed": True}


def audit_work(run: JobRun, step: AuditStep, output: Path) -> Callable[[], dict[str, Any]]:
    """Audit the run, write the result, hold it to the verdicts that are required."""

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


def compare_work(run: JobRun, step: DriftStep) -> Callable[[], dict[str, Any]]:
    """Hold the run to the limits against its baseline; the first run has none to meet."""

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


def report_work(run: JobRun, step: ReportStep, output: Path) -> Callable[[], dict[str, Any]]:
    """Write the report, with what the comparison found."""

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
