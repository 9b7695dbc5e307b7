"""Routing recorded elsewhere, in any form, into a lake."""

from pathlib import Path
from typing import Any

from tracer.datasets.lines import text_lines
from tracer.errors import InputError
from tracer.store.import_limits import Unpacked
from tracer.store.interchange import Reader, import_run
from tracer.store.interchange_flame import flame_files, read_flame
from tracer.store.interchange_jsonl import MOST_LINE_BYTES, read_jsonl
from tracer.store.routed_experts import read_routed_experts
from tracer.store.sglang_records import read_sglang

__all__ = ["import_form"]

_IDS_ONLY = ("vllm", "sglang")


def import_form(
    lake_path: Path | str,
    *,
    form: str,
    routing: Path,
    requests: Path,
    run: Path,
    run_id: str | None = None,
    weight_precision: str = "f32",
    max_gb: float | None = None,
) -> dict[str, Any]:
    """Bring one run into the lake; arguments and result as ``import_run`` has them.

    Args:
        lake_path: a lake, or where to make one.
        form: of ``routing``: interchange, jsonl, vllm, sglang or flame.
        routing: a file; a folder in the form flame.
        requests: Parquet, a row per request.
        run: JSON.
        run_id: name of the run.
        weight_precision: f32 or bf16.
        max_gb: most that the files may unpack to; None takes the default.

    Raises:
        MissingLibraryError: sglang needs torch.
        InputError: a file that cannot be read, or lacks a column or key.
        DatasetError: lines that cannot be read.
        DamagedDataError: files that contradict each other or themselves; nothing is committed.
    """
    files = list(flame_files(routing).values()) if form == "flame" else []
    if not files and not routing.is_file():
        raise InputError(f"{routing} is not a file")
    limit = Unpacked() if max_gb is None else Unpacked(int(max_gb * 1e9))
    readers: dict[str, Reader] = {
        "jsonl": lambda row, _: read_jsonl(
            routing, text_lines(routing, MOST_LINE_BYTES), row, limit
        ),
        "vllm": lambda row, described: read_routed_experts(routing, row, described, limit),
        "sglang": lambda row, described: read_sglang(routing, row, described, limit),
        "flame": lambda row, described: read_flame(routing, row, described, limit),
    }
    return import_run(
        lake_path,
        routing=routing,
        requests=requests,
        run=run,
        run_id=run_id,
        weight_precision=weight_precision,
        read=readers.get(form),
        files=files,
        limit=limit,
        weights_known=form not in _IDS_ONLY,
    )
