"""What is wrong with the rows of a run: each check is a file of ``queries/verify``."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tracer.analysis.sql import connect, run_query
from tracer.analysis.views import LakeFiles

__all__ = ["ROW_CHECKS", "RowFault", "check_rows"]

# In the order of their answers; each looks at one kind of damage.
ROW_CHECKS = (
    "requests",
    "counts",
    "strangers",
    "duplicates",
    "choices",
    "tokens",
    "usage",
    "usage_by_domain",
    "extras",
)


@dataclass(frozen=True, slots=True)
class RowFault:
    """Something wrong with the rows of a request, or with sums over several.

    check: of ``ROW_CHECKS``; layer_id: None where it is in no layer, or in all
    """

    check: str
    request_id: str | None
    layer_id: int | None
    detail: str


def check_rows(lake: LakeFiles, run_id: str, checked: Callable[[str], None]) -> Iterator[RowFault]:
    """Faults of a run's rows, check after check.

    Args:
        lake: which, without files that cannot be read; what is missing with them is told by
            request.
        run_id: of the run.
        checked: told each check that is done.

    Raises:
        DamagedDataError: a file cannot be read after all.
    """
    con = connect(lake, run_id)
    try:
        for check in ROW_CHECKS:
            for row in run_query(con, f"verify/{check}", run_id=run_id).iter_rows(named=True):
                yield RowFault(check, row["request_id"], row["layer_id"], row["detail"])
            checked(check)
    finally:
        con.close()
