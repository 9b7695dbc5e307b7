"""A scheduled job: capture, audit, report; what is done already is skipped.

The capture knows by itself what is done. Audit and report are remembered in a note beside the
lake's tables: they are made again when the run, the job file or the program changed, or when an
output is gone.
"""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tracer import __version__
from tracer.analysis.audit import audit
from tracer.capture.manifest import CaptureRequest
from tracer.datasets.options import DatasetOptions
from tracer.domain_map import load_domains
from tracer.files import write_whole
from tracer.records import audit_draws
from tracer.report.audit_text import render_csv, render_json, render_table
from tracer.store.lake import Lake
from tracer.workflow.capture import capture_dataset
from tracer.workflow.job_file import AuditStep, JobFile, ReportStep
from tracer.workflow.report import write_report

__all__ = ["run_job"]

_RENDER = {"json": render_json, "csv": render_csv, "table": render_table}
_DATASET_FIELDS = tuple(DatasetOptions.__dataclass_fields__)


def run_job(
    job: JobFile, *, lake_path: Path | str | None = None, verbose: bool = False
) -> dict[str, Any]:
    """Run the job's steps in order; the first error ends it, finished steps stay done.

    Args:
        job: what to do.
        lake_path: another lake than the job file names.
        verbose: show the engine's log.

    Returns:
        run_id, the capture's summary, and per step `done` or `skipped` with its output.
    """
    options = job.options.model_dump()
    dataset_options = DatasetOptions(**{name: options.pop(name) for name in _DATASET_FIELDS})
    request = CaptureRequest(model=job.model, engine_options=job.engine, **options)
    target = lake_path or job.lake
    captured = capture_dataset(request, job.dataset, dataset_options, target, verbose=verbose)
    lake = Lake.open(target)
    run_id = captured["run_id"]
    result: dict[str, Any] = {
        "run_id": run_id,
        "capture": {"status": "done" if captured["bytes_written"] else "skipped", **captured},
    }
    if job.audit is not None:
        step = job.audit
        result["audit"] = _once(lake, run_id, step, lambda: _write_audit(lake, run_id, step))
    if job.report is not None:
        page = job.report
        result["report"] = _once(lake, run_id, page, lambda: _write_report(lake, run_id, page))
    return result


def _write_audit(lake: Lake, run_id: str, step: AuditStep) -> None:
    found = audit(
        lake,
        run_id=run_id,
        mode=step.mode,
        tokens=step.tokens,
        min_presence=step.min_presence,
        rank_cutoff=step.rank_cutoff,
        domains=load_domains(step.domains) if step.domains else None,
        allow_missing_tokens=step.allow_missing_tokens,
        draws=audit_draws(step.mode) if step.draws is None else step.draws,
        seed=step.seed,
        same_token=step.same_token,
    )
    write_whole(step.output, _RENDER[step.format](found).encode())


def _write_report(lake: Lake, run_id: str, step: ReportStep) -> None:
    domains = load_domains(step.domains) if step.domains else None
    write_report(
        lake,
        run_id,
        step.output,
        min_presence=step.min_presence,
        domains=domains,
        allow_missing_tokens=step.allow_missing_tokens,
        draws=step.draws,
        seed=step.seed,
    )


def _once(
    lake: Lake, run_id: str, step: AuditStep | ReportStep, work: Callable[[], None]
) -> dict[str, str]:
    """Do ``work`` unless the same step was done for this very state of the run."""
    output = step.output
    note = f"_tracer/jobs/{_digest(str(output))}.json"
    state = {
        "output": str(output),
        "step": _digest(step.model_dump_json()),
        "domains": _digest(step.domains.read_text()) if step.domains else "",
        "run": f"{run_id} {lake.run(run_id)['finished_at']}",
        "version": __version__,
    }
    if output.exists() and _noted(lake, note) == state:
        return {"status": "skipped", "output": str(output)}
    lake.storage.remove(note)
    work()
    lake.storage.write(note, json.dumps(state))
    return {"status": "done", "output": str(output)}


def _noted(lake: Lake, note: str) -> Any:
    try:
        return json.loads(lake.storage.read(note))
    except FileNotFoundError:
        return None


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
