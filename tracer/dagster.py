"""A job file as Dagster's assets, checks and schedule; the work is that of `tracer job run`.

    defs = definitions(Path("nightly.yaml"))

Each step is an asset, partitioned by model x dataset. What the job did before, by any scheduler, is
not done again. The extra `dagster` installs the library.
"""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import dagster as dg

from tracer.errors import TracerError
from tracer.store.lake import Lake
from tracer.workflow.job import capture_run, judge_run
from tracer.workflow.job_combination import Combination, combinations, name_run
from tracer.workflow.job_file import JobFile
from tracer.workflow.job_load import load_job
from tracer.workflow.job_lock import hold_combination
from tracer.workflow.job_of_run import JobRun
from tracer.workflow.job_retention import remove_old_runs
from tracer.workflow.job_steps import step_names, steps_of, take_step

__all__ = ["PERIOD_TAG", "definitions"]

# Retries of a run stay in its period, whatever the clock says then.
PERIOD_TAG = "moe-tracer/period"
_CRON = {"hour": "30 * * * *", "day": "30 2 * * *", "week": "30 2 * * 1", "month": "30 2 1 * *"}
_ENGINE_FAILED = 4


def definitions(
    file: Path, *, cron: str | None = None, lake_path: Path | str | None = None
) -> dg.Definitions:
    """Assets, checks, a job and its schedule for a job file.

    Args:
        file: the job file.
        cron: times in UTC that the schedule starts at, on from the start; by default half past
            the hour, or 02:30, as the file's `every` says, and off until somebody turns it on. A
            job that runs once has no schedule but this.
        lake_path: another lake than the file names.

    Raises:
        InputError: the job file cannot be used.
    """
    job = load_job(file)
    target = lake_path or job.lake
    name = str(job.name).replace("-", "_").replace(".", "_")
    partitions = dg.MultiPartitionsDefinition(
        {
            "model": dg.StaticPartitionsDefinition([str(one.name) for one in job.model_entries]),
            "dataset": dg.StaticPartitionsDefinition(
                [str(one.name) for one in job.dataset_entries]
            ),
        }
    )
    steps = ["capture", *step_names(job), "judge"]
    assets = [
        _asset(job, target, step, before=before, group=name, partitions=partitions)
        for step, before in zip(steps, ["", *steps], strict=False)
    ]
    asset_job = dg.define_asset_job(name, selection=list(assets))
    times = cron or _CRON.get(job.every)
    schedules = [_schedule(job, asset_job, times, running=cron is not None)] if times else []
    return dg.Definitions(assets=assets, jobs=[asset_job], schedules=schedules)


def _asset(
    job: JobFile,
    target: Path | str,
    step: str,
    *,
    before: str,
    group: str,
    partitions: dg.MultiPartitionsDefinition,
) -> dg.AssetsDefinition:
    """One step; its check is whether what it found passed."""
    key = dg.AssetKey([group, step.replace(" ", "_")])
    checked = step not in ("capture", "compact", "report")

    @dg.asset(
        key=key,
        deps=[dg.AssetKey([group, before.replace(" ", "_")])] if before else [],
        partitions_def=partitions,
        group_name=group,
        check_specs=[dg.AssetCheckSpec("passed", asset=key)] if checked else [],
        retry_policy=dg.RetryPolicy(max_retries=2, delay=60),
    )
    def work(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        with _told(), contextlib.ExitStack() as stack:
            combination = _combination(job, context)
            hold_combination(target, combination, stack)
            found = _found(job, target, combination, step)
        why = str(found.pop("why", "")) or None
        passed = bool(found.pop("passed", True))
        checks = [dg.AssetCheckResult(passed=passed, description=why)] if checked else []
        metadata = {word: _metadata(value) for word, value in found.items() if value is not None}
        return dg.MaterializeResult(metadata=metadata, check_results=checks)

    return work


def _combination(job: JobFile, context: dg.AssetExecutionContext) -> Combination:
    key = context.partition_key
    names = key.keys_by_dimension if isinstance(key, dg.MultiPartitionKey) else {}
    place = names["model"], names["dataset"]
    every = combinations(job, context.run.tags.get(PERIOD_TAG))
    return next(one for one in every if (one.model, one.dataset) == place)


def _found(job: JobFile, target: Path | str, combination: Combination, step: str) -> dict[str, Any]:
    named = name_run(combination)
    if step == "capture":
        return capture_run(combination, named, target)
    run = JobRun.of(Lake.open(target), job, combination, named.run_id)
    if step == "judge":
        good, breaches = judge_run(run)
        removed = remove_old_runs(run, job.retention) if job.retention else {}
        return {"run_id": run.run_id, "passed": good, "why": "; ".join(breaches), **removed}
    return take_step(run, next(one for one in steps_of(run) if one.name == step))


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Errors as Dagster's; only an engine that failed is worth another try."""
    try:
        yield
    except TracerError as error:
        raise dg.Failure(
            description=f"{error} {error.hint or ''}".strip(),
            metadata={"exit_code": error.exit_code},
            allow_retries=error.exit_code == _ENGINE_FAILED,
        ) from error


def _metadata(value: Any) -> Any:
    if isinstance(value, dict | list | tuple):
        return dg.MetadataValue.json(value)
    return value if isinstance(value, int | float | str) else str(value)


def _schedule(job: JobFile, asset_job: Any, cron: str, *, running: bool) -> dg.ScheduleDefinition:
    status = dg.DefaultScheduleStatus.RUNNING if running else dg.DefaultScheduleStatus.STOPPED

    @dg.schedule(job=asset_job, cron_schedule=cron, execution_timezone="UTC", default_status=status)
    def every_period(context: dg.ScheduleEvaluationContext) -> Sequence[dg.RunRequest]:
        del context
        return [
            dg.RunRequest(
                run_key=f"{one.period} {one.title}",
                partition_key=dg.MultiPartitionKey({"model": one.model, "dataset": one.dataset}),
                tags={PERIOD_TAG: one.period} if one.period else {},
            )
            for one in combinations(job)
        ]

    return every_period
