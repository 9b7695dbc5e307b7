"""Which batch of a run a commit or a file belongs to, by the names that they have."""

import re
from collections.abc import Iterable

from tracer.store.shares import BATCHES_OF_A_SHARE

__all__ = ["batch_app_id", "batch_of_sums", "last_batches"]

_SUMS = re.compile(r"usage_by_domain/(?P<run>[^/]+)/(?P<number>\d{6,})-[^/]*\.parquet")
# <batch>-<digest>, <batch> as older versions have it, or compacted/<first>-<last>-<digest>.
_REQUESTS = re.compile(
    r"requests/(?P<run>[^/]+)/(?:compacted/\d+-)?(?P<number>\d{6,})(?:-[0-9a-f]{8})?\.parquet"
)


def batch_app_id(run_id: str, batch: int) -> str:
    """Id of the transaction that commits a batch to a table."""
    return f"{run_id}/{batch:06d}"


def batch_of_sums(name: str) -> tuple[str, int] | None:
    """(run, batch) of a file of `usage_by_domain` in the lake; None of a merged one."""
    found = _SUMS.fullmatch(name)
    return (found["run"], int(found["number"])) if found else None


def last_batches(names: Iterable[str]) -> dict[tuple[str, int], int]:
    """Number of the last batch by (run, share) among files of `requests`, merged or not.

    Of a merged file that holds several shares, only the last of them is told.
    """
    last: dict[tuple[str, int], int] = {}
    for name in names:
        if found := _REQUESTS.fullmatch(name):
            number = int(found["number"])
            key = (found["run"], number // BATCHES_OF_A_SHARE)
            last[key] = max(last.get(key, -1), number)
    return last
