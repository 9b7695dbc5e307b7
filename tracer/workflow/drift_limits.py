"""The limits of a job file as the comparison of two runs takes them."""

from tracer.analysis.drift import DriftLimit
from tracer.workflow.job_file import DriftStep, Limit

__all__ = ["limits_of"]


def limits_of(step: DriftStep) -> list[DriftLimit]:
    """Every limit; a plain number is of the absolute value."""
    found = []
    for name, limit in step.limits.items():
        measure, column = name.split(".")
        if isinstance(limit, Limit):
            found.append(DriftLimit(measure, column, limit.min, limit.max))
        else:
            found.append(DriftLimit(measure, column, None, limit, absolute=True))
    return found
