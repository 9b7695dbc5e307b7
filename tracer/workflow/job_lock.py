"""The lock of one combination of a job: one start at a time takes its steps."""

import contextlib
from pathlib import Path

from tracer.errors import InputError, LakeBusyError
from tracer.store.lake_location import open_storage
from tracer.workflow.job_combination import Combination

__all__ = ["hold", "hold_combination"]


def hold_combination(
    target: Path | str, combination: Combination, stack: contextlib.ExitStack
) -> None:
    """Hold the lock of a combination of this job until ``stack`` or the process ends.

    Raises:
        InputError: another start of the job has it.
    """
    hold(target, (combination.job, combination.model, combination.dataset), stack)


def hold(target: Path | str, names: tuple[str, str, str], stack: contextlib.ExitStack) -> None:
    """As ``hold_combination``, of (job, model, dataset) by name."""
    job, model, dataset = names
    name = ",".join(names)  # which no name has, or a.b with c would be a with b.c
    lock = open_storage(target).locked(f"_tracer/locks/{name}.job-lock", name)
    try:
        stack.enter_context(lock)
    except LakeBusyError as error:
        raise InputError(
            f"job {job!r} is at work on {model}/{dataset} already",
            "wait for it; started again it does only what is left.",
        ) from error
