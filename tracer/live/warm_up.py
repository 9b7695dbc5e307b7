"""Compiles what writes shards before the first request comes.

numba compiles under the interpreter's lock, for seconds, which would hold up the engine's thread
beside it. Where its cache holds the machine code already, this takes a moment.
"""

import contextlib
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tracer.capture.finished import FinishedRequest
from tracer.capture.row_format import RowFormat
from tracer.capture.row_log import TakenRows
from tracer.live.batch import LiveRequest, assemble_sound
from tracer.store.local_storage import LocalStorage
from tracer.store.shard import ShardWriter

__all__ = ["warm_up"]

_TOKENS = 8


def warm_up(
    row_format: RowFormat, layer_ids: Sequence[int], num_experts: int, precision: str
) -> None:
    """Write a made-up shard into a temporary folder.

    Args:
        row_format: of the records of the worker, so that the loops get arrays like its own.
        layer_ids: of its layers.
        num_experts: of a layer.
        precision: of the weights, as ``ShardWriter`` has it.
    """
    rows = np.zeros((_TOKENS, row_format.row_bytes), dtype=np.uint8)
    ids = row_format.array(rows, "expert_ids")
    ids[:] = np.arange(ids.shape[-1], dtype=ids.dtype)
    finished = FinishedRequest("warm", "warm", "none", _TOKENS // 2, [0] * (_TOKENS + 1))
    taken = TakenRows(rows, np.ones(_TOKENS, dtype=np.bool_), np.array([0, _TOKENS]))
    made, _, errors = assemble_sound([LiveRequest(finished, {}, 0)], taken, row_format, layer_ids)
    if made is None:
        raise errors[0]
    # Without room for it the first shard compiles; the lake may be on another disk.
    with (
        contextlib.suppress(OSError),
        tempfile.TemporaryDirectory(prefix="moe-tracer-") as folder,
    ):
        storage = LocalStorage(Path(folder))
        storage.prepare()
        ShardWriter(storage, "warm", num_experts, precision).write("warm", made)
