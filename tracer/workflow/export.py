"""A run written in the form that another program reads."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tracer.files import check_output, whole_folder
from tracer.store.interchange_export import FILES, write_interchange
from tracer.store.lake import Lake
from tracer.store.run_rows import RunRows

__all__ = ["export_run"]


def export_run(
    lake: Lake,
    run_id: str | None,
    *,
    form: str,
    output: Path,
    force: bool,
    done: Callable[[str], None],
) -> dict[str, Any]:
    """Write a run to ``output``, whole or not at all.

    Args:
        lake: where from.
        run_id: which; None takes the only one.
        form: `interchange`.
        output: a folder that is made.
        force: replaces an earlier export there.
        done: told each file of the lake that was read.

    Returns:
        run_id, run_status, form, output, num_requests, num_requests_left_out, num_rows.

    Raises:
        InputError: the output is there or cannot be written, or the run does not fit the form.
        UnknownRunError: no such run.
        DamagedDataError: the lake cannot be read.
    """
    names = FILES
    check_output(output, force=force, names=names)
    rows = RunRows(lake, run_id)
    with whole_folder(output, force=force, names=names) as folder:
        num_rows = write_interchange(folder, rows, done)
    return {
        "run_id": rows.run_id,
        "run_status": rows.run["status"],
        "form": form,
        "output": str(output),
        "num_requests": len(rows.requests),
        "num_requests_left_out": rows.num_left_out,
        "num_rows": num_rows,
    }
