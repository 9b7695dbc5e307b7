"""Deletes the oldest runs of live traffic, so that they stay within a size and an age."""

from collections.abc import Mapping
from typing import Any

from tracer.errors import LakeBusyError, UnknownRunError
from tracer.live.config import LiveConfig
from tracer.live.runs import live_run_ids
from tracer.store.commit import COMMIT_ORDER
from tracer.store.delete import delete_run
from tracer.store.lake import Lake, utc_now
from tracer.store.removed_files import remove_expired

__all__ = ["READERS_HOURS", "keep_within", "run_sizes"]

# Who reads a run while it is deleted has so long to finish.
READERS_HOURS = 1 / 6
_SECONDS_PER_HOUR = 3600


def run_sizes(lake: Lake) -> dict[str, int]:
    """Bytes of each run's own files that the tables name."""
    sizes: dict[str, int] = {}
    for table in COMMIT_ORDER:
        for file in lake.named_files(table):
            name = lake.storage.name_of(file)
            run_id = name.removeprefix(f"{table}/").partition("/")[0]
            try:
                sizes[run_id] = sizes.get(run_id, 0) + lake.storage.size(name)
            except FileNotFoundError:  # replaced meanwhile
                continue
    return sizes


def keep_within(lake: Lake, config: LiveConfig) -> list[str]:
    """Delete runs of this configuration's name until the limits hold; open ones stay.

    Returns:
        The runs that were deleted, oldest first.
    """
    if config.disk_gb is None and config.keep_hours is None:
        return []
    rows = {row["run_id"]: row for row in lake.runs()}
    mine = live_run_ids(list(rows.values()), config.name)
    sizes = run_sizes(lake) if config.disk_gb is not None else {}
    total = sum(sizes.get(run_id, 0) for run_id in mine)
    deleted: list[str] = []
    for run_id in mine:
        too_large = config.disk_gb is not None and total > config.disk_gb * 1e9
        if not (too_large or _is_too_old(rows[run_id], config.keep_hours)):
            continue
        if rows[run_id]["status"] == "running":
            continue
        try:
            delete_run(lake, run_id, lambda _: None)
        except (LakeBusyError, UnknownRunError):  # somebody merges or deletes it
            continue
        total -= sizes.get(run_id, 0)
        deleted.append(run_id)
    remove_expired(lake, READERS_HOURS)
    return deleted


def _is_too_old(row: Mapping[str, Any], keep_hours: float | None) -> bool:
    if keep_hours is None or row["finished_at"] is None:
        return False
    age = (utc_now() - row["finished_at"]).total_seconds()
    return bool(age > keep_hours * _SECONDS_PER_HOUR)
