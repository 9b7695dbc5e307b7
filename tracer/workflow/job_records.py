"""What a job remembers of its runs, in the lake: which steps are done, which runs are good.

One JSON file a run, ``_tracer/jobs/<job>/<run_id>.json``. What was found of a run counts only while
the lake still holds that very run.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from tracer.store.lake import Lake

__all__ = ["Record", "Records", "finished", "is_good"]


@dataclass(slots=True)
class Record:
    """A run of the job.

    model, dataset, period: of the combination
    finished_at: of the run when its steps were done, ISO 8601
    good: every step passed, or somebody accepted the run
    steps: by name what the step's result was made of (`state`) and what it found (`result`)
    """

    run_id: str
    model: str
    dataset: str
    period: str | None
    finished_at: str = ""
    good: bool = False
    steps: dict[str, dict[str, Any]] = field(default_factory=dict)


class Records:
    """The records of one job in one lake."""

    def __init__(self, lake: Lake, job: str) -> None:
        self._lake = lake
        self._folder = f"_tracer/jobs/{job}"

    def of(self, run_id: str) -> Record | None:
        """The record of a run, if the job has one."""
        try:
            return Record(**json.loads(self._lake.storage.read(f"{self._folder}/{run_id}.json")))
        except FileNotFoundError:
            return None

    def save(self, record: Record) -> None:
        """Write a record, whole or not at all."""
        text = json.dumps(asdict(record), default=str)
        self._lake.storage.write(f"{self._folder}/{record.run_id}.json", text)

    def remove(self, run_id: str) -> None:
        """Forget a run."""
        self._lake.storage.remove(f"{self._folder}/{run_id}.json")

    def runs(self, model: str, dataset: str) -> list[tuple[dict[str, Any], Record]]:
        """(row of `runs`, record) of the combination's runs in the lake, oldest first."""
        found = []
        known = {name.rsplit("/", 1)[-1] for name in self._lake.storage.names(self._folder)}
        for row in self._lake.runs():
            if f"{row['run_id']}.json" not in known:
                continue
            record = self.of(str(row["run_id"]))
            if record is not None and (record.model, record.dataset) == (model, dataset):
                found.append((row, record))
        return found

    def lost(self, model: str, dataset: str) -> list[str]:
        """Runs of the combination that `runs` has no more, or never had."""
        there = {row["run_id"] for row in self._lake.runs()}
        names = self._lake.storage.names(self._folder)
        known = {name.rsplit("/", 1)[-1].removesuffix(".json") for name in names}
        records = [self.of(run_id) for run_id in sorted(known - there)]
        return [r.run_id for r in records if r and (r.model, r.dataset) == (model, dataset)]

    def last_good(self, model: str, dataset: str, before: Mapping[str, Any]) -> str | None:
        """The youngest good run of the combination that began before the run of this row."""
        place = (before["started_at"], before["run_id"])
        good = [
            row["run_id"]
            for row, record in self.runs(model, dataset)
            if is_good(row, record) and (row["started_at"], row["run_id"]) < place
        ]
        return good[-1] if good else None


def is_good(row: Mapping[str, Any], record: Record) -> bool:
    """Whether the record's judgement is of the run as the lake has it."""
    return record.good and record.finished_at == finished(row)


def finished(row: Mapping[str, Any]) -> str:
    """When a run became complete, as text; empty while it is not."""
    return row["finished_at"].isoformat() if row["finished_at"] else ""
