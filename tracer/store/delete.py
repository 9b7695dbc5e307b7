"""Takes a run out of every table."""

import contextlib
from collections.abc import Callable

from tracer.errors import LakeBusyError, UnknownRunError
from tracer.store.commit import COMMIT_ORDER
from tracer.store.lake import Lake, check_run_id
from tracer.store.removed_files import note_removed
from tracer.store.replace_files import replace_files
from tracer.store.shares import forget_split

__all__ = ["delete_run"]


def delete_run(lake: Lake, run_id: str, done: Callable[[str], None]) -> int:
    """Remove a run: first from `runs`, so that no command finds half of it, then its rows.

    Interrupted, the same call goes on. The files stay on disk for whoever reads them at this
    moment, see ``remove_expired``. The name may be used again for another run.

    Args:
        lake: which.
        run_id: of the run.
        done: told each table that is done.

    Returns:
        Bytes of the files that left the tables.

    Raises:
        UnknownRunError: no table has anything of it.
        LakeBusyError: another process writes or merges it.
    """
    check_run_id(run_id)
    with lake.writing(run_id) as lock, lake.compacting(run_id):
        known = [run["run_id"] for run in lake.runs()]
        rests = {table: _files(lake, table, run_id) for table in COMMIT_ORDER}
        if run_id not in known and not any(rests.values()):
            raise UnknownRunError(run_id, known)
        lake.delta("runs").delete(f"run_id = '{run_id}'")
        # Or the next writer of a run of this name would finish these batches.
        lake.storage.remove_folder(f"_tracer/staged/{run_id}")
        forget_split(lake.storage, run_id)
        done("runs")
        num_bytes = 0
        for table in reversed(COMMIT_ORDER):
            lock.check()
            num_bytes += _delete_from(lake, table, run_id)
            done(table)
        lock.check()
        lake.storage.remove_folder(f"_tracer/committed/{run_id}")
    return num_bytes


def _delete_from(lake: Lake, table: str, run_id: str) -> int:
    names = _files(lake, table, run_id)
    num_bytes = 0
    for name in names:
        with contextlib.suppress(FileNotFoundError):
            num_bytes += lake.storage.size(f"{table}/{name}")
    if names:
        note_removed(lake.storage, run_id, [f"{table}/{name}" for name in names])
        if not replace_files(lake.storage, table, "DELETE", names):
            raise LakeBusyError(run_id)  # another Delta tool is at the table
    if lake.named_files(table, run_id):  # files that another tool merged hold several runs
        lake.delta(table).delete(f"run_id = '{run_id}'")
    return num_bytes


def _files(lake: Lake, table: str, run_id: str) -> list[str]:
    """The run's own files in a table, relative to it."""
    found = [lake.storage.name_of(file) for file in lake.named_files(table)]
    names = [name.removeprefix(f"{table}/") for name in found]
    return [name for name in names if name.startswith(f"{run_id}/")]
