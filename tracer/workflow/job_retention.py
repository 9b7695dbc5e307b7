"""Which runs of a job go, and their going."""

import datetime
from typing import Any

from tracer.errors import LakeBusyError, UnknownRunError
from tracer.store.delete import delete_run
from tracer.store.lake import utc_now
from tracer.store.removed_files import remove_expired
from tracer.workflow.job_file import Retention
from tracer.workflow.job_of_run import JobRun
from tracer.workflow.job_records import is_good

__all__ = ["expired_runs", "remove_old_runs"]


def expired_runs(run: JobRun, rules: Retention) -> list[str]:
    """Runs of this job, model and dataset that no rule keeps, oldest first.

    The run at hand, the one it is compared with and the last good one are never among them, nor
    is what is younger than the run at hand.
    """
    if rules.runs is None and rules.days is None:
        return []
    every = run.records.runs(run.combination.model, run.combination.dataset)
    good = [row for row, record in every if is_good(row, record)]
    held = {run.run_id, run.baseline, *(row["run_id"] for row in good[-1:])}
    if run.job.drift is not None:
        held.add(run.job.drift.against)
    since: list[datetime.datetime] = []
    if rules.runs is not None:
        if len(good) < rules.runs:
            return []
        since.append(good[-rules.runs]["started_at"])
    if rules.days is not None:
        since.append(utc_now() - datetime.timedelta(days=rules.days))
    first = min(*since, run.row["started_at"])
    return [
        row["run_id"] for row, _ in every if row["started_at"] < first and row["run_id"] not in held
    ]


def remove_old_runs(run: JobRun, rules: Retention) -> dict[str, Any]:
    """Take the expired runs out of the lake, and files off the disk that left it long enough ago.

    A run that another process is at stays, and goes the next time. A removal that was interrupted
    is finished.
    """
    removed, busy = [], []
    num_bytes = 0
    lost = run.records.lost(run.combination.model, run.combination.dataset)
    for run_id in [*lost, *expired_runs(run, rules)]:
        try:
            num_bytes += delete_run(run.lake, run_id, lambda _table: None)
        except LakeBusyError:
            busy.append(run_id)
            continue
        except UnknownRunError:  # nothing of it was left, or ever written
            run.records.remove(run_id)
            continue
        run.records.remove(run_id)
        removed.append(run_id)
    files, freed = remove_expired(run.lake, rules.keep_hours)
    return {
        "runs_removed": removed,
        "runs_busy": busy,
        "bytes_deleted": num_bytes,
        "files_removed": files,
        "bytes_freed": freed,
    }
