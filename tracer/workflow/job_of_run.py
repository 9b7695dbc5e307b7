"""A complete run of a job with what the job remembers of it."""

from dataclasses import dataclass
from typing import Any

from tracer.store.lake import Lake
from tracer.workflow.job_combination import Combination
from tracer.workflow.job_file import JobFile
from tracer.workflow.job_records import Record, Records, finished

__all__ = ["JobRun"]


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
