"""A lake checked: its files first, then the rows of each run in those that are sound."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tracer.analysis.row_checks import check_rows
from tracer.errors import LakeBusyError
from tracer.store.commit import recover
from tracer.store.file_checks import (
    SoundFiles,
    check_files,
    files_of_requests,
    leftovers,
    runs_with_files,
)
from tracer.store.lake import Lake

__all__ = ["Fault", "Verification", "verify_lake"]


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong.

    check: files, leftovers, or a file of ``queries/verify``
    path: file below the lake; several, where rows of a request lie in several, by commas
    """

    check: str
    run_id: str | None
    path: str | None
    request_id: str | None
    layer_id: int | None
    detail: str

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Verification:
    """What was found.

    num_files: that were read; num_runs: whose rows were checked
    repaired: what was done about faults that are no longer there
    """

    faults: Sequence[Fault]
    repaired: Sequence[str]
    num_files: int
    num_runs: int


def verify_lake(
    lake: Lake, run_id: str | None, *, repair: bool, checked: Callable[[str], None]
) -> Verification:
    """Check every file and row of a lake, or of one run.

    Runs that a process is writing are checked as far as they are committed.

    Args:
        lake: which.
        run_id: one run only.
        repair: finish batches that a crash left staged, and remove files that no table names.
            Nothing that a reader can see is removed.
        checked: told each file, and each check of a run's rows.

    Raises:
        UnknownRunError: no such run.
        DamagedDataError: the table `runs` itself cannot be read.
    """
    runs = [lake.run(run_id)] if run_id is not None else lake.runs()
    run_ids = [run["run_id"] for run in runs]
    repaired = [line for name in run_ids for line in _repair(lake, name)] if repair else []
    num_files = 0

    def count(name: str) -> None:
        nonlocal num_files
        num_files += 1
        checked(name)

    broken = list(check_files(lake, run_id, count))
    faults = [
        Fault("files", fault.run_id, fault.path, None, None, fault.detail) for fault in broken
    ]
    sound = SoundFiles(lake, broken)
    if run_id is None:
        lost = "rows of a run that `runs` does not name; `tracer delete --run {}` removes them"
        faults += [
            Fault("files", name, None, None, None, lost.format(name))
            for name in sorted(runs_with_files(lake) - set(run_ids))
        ]
    for run in runs:
        name = run["run_id"]
        if run["status"] == "complete":
            faults += [
                Fault("leftovers", name, fault.path, None, None, fault.detail)
                for fault in leftovers(lake, name)
            ]
        faults += _row_faults(sound, name, checked)
    return Verification(faults, repaired, num_files, len(runs))


def _row_faults(sound: SoundFiles, run_id: str, checked: Callable[[str], None]) -> list[Fault]:
    found = list(check_rows(sound, run_id, lambda check: checked(f"{run_id}: {check}")))
    requests = {fault.request_id for fault in found if fault.request_id is not None}
    files = files_of_requests(sound, run_id, requests) if requests else {}
    return [
        Fault(
            fault.check,
            run_id,
            ", ".join(files.get(fault.request_id or "", ())) or None,
            fault.request_id,
            fault.layer_id,
            fault.detail,
        )
        for fault in found
    ]


def _repair(lake: Lake, run_id: str) -> list[str]:
    """Clear away what a crash left of a run; nothing while somebody writes it."""
    try:
        with lake.writing(run_id) as lock:
            left = leftovers(lake, run_id)
            if not left:
                return []
            recover(lake, run_id, lock)
    except LakeBusyError:
        return [f"run {run_id} is being written: left alone"]
    verbs = {"a staged batch": "committed", "a file no table names": "removed"}
    return [f"run {run_id}: {verbs[fault.detail]} {fault.path}, {fault.detail}" for fault in left]
