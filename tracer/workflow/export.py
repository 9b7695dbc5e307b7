"""A run written in the form that another program reads."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tracer.analysis.audit import audit
from tracer.files import check_output, whole_folder, write_whole
from tracer.report.topk_text import render_topk
from tracer.store.interchange_export import (
    FILES,
    write_interchange,
    write_requests_file,
    write_run_file,
)
from tracer.store.lake import Lake
from tracer.store.routed_experts import write_routed_experts
from tracer.store.run_rows import RunRows

__all__ = ["export_run"]

_ROUTED_EXPERTS = "routed_experts.npz"


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
        form: `interchange`, `vllm` or `topk`.
        output: a folder that is made; in the form `topk` a file.
        force: replaces an earlier export there.
        done: told each file of the lake that was read.

    Returns:
        run_id, run_status, form, output, num_requests, num_requests_left_out, num_rows.

    Raises:
        InputError: the output is there or cannot be written, or the run does not fit the form.
        UnknownRunError: no such run.
        DamagedDataError: the lake cannot be read.
    """
    if form == "topk":
        return _export_topk(lake, run_id, output, force=force)
    names = FILES if form == "interchange" else (_ROUTED_EXPERTS, *FILES[1:])
    check_output(output, force=force, names=names)
    rows = RunRows(lake, run_id)
    with whole_folder(output, force=force, names=names) as folder:
        write_requests_file(folder / "requests.parquet", rows)
        write_run_file(folder / "run.json", rows)
        if form == "interchange":
            num_rows = write_interchange(folder / "routing.parquet", rows, done)
        else:
            num_rows = write_routed_experts(folder / _ROUTED_EXPERTS, rows, done)
    return {
        "run_id": rows.run_id,
        "run_status": rows.run["status"],
        "form": form,
        "output": str(output),
        "num_requests": len(rows.requests),
        "num_requests_left_out": rows.num_left_out,
        "num_rows": num_rows,
    }


def _export_topk(lake: Lake, run_id: str | None, output: Path, *, force: bool) -> dict[str, Any]:
    """The authors' table, from the sums of the run: rows of routing are not read."""
    check_output(output, force=force)
    found = audit(lake, run_id=run_id, mode="reference")
    text = render_topk(found)
    write_whole(output, text.encode())
    num_requests = sum(domain.num_requests for domain in found.domains)
    return {
        "run_id": found.run_id,
        "run_status": found.run_status,
        "form": "topk",
        "output": str(output),
        "num_requests": num_requests,
        "num_requests_left_out": sum(found.requests_by_status.values()) - num_requests,
        "num_rows": sum(len(found.domains) for _ in found.layers),
    }
