"""What recording cannot go below: the bytes of a token moved, and compressed.

Floors are measured here and now, on the machine and on rows the run itself stored. *Copy*: the
recorded bytes copied twice, from the router to the buffer and from there to the host. *Compress*:
the same expert ids and bfloat16 weights, byte by byte of equal place, through zstd at the lake's
level; no sorting, checking, joining or file format.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

__all__ = ["Floor", "byte_planes", "measure_floor"]

_COPIES = 2
_COPIED_BYTES = 1 << 26  # far more than a cache holds
_ZSTD_LEVEL = 1
_TRIES = 5
# Position and token id, int32 each.
_LABEL_BYTES = 8
_SMALL_ID = 255


@dataclass(frozen=True, slots=True)
class Floor:
    """Of one token, all layers.

    record_bytes: ids, bfloat16 weights and labels; stored_bytes: of the `routing` file
    copy_s, compress_s: compute seconds
    """

    record_bytes: int
    stored_bytes: float
    copy_s: float
    compress_s: float

    @property
    def cpu_s(self) -> float:
        """Compute seconds of both."""
        return self.copy_s + self.compress_s


def measure_floor(routing_file: Path, num_experts: int) -> Floor:
    """Floor for the tokens of one committed `routing` file."""
    file = pq.ParquetFile(routing_file)
    columns = ["expert_ids", "gate_weights"]
    layers = [file.read_row_group(n, columns) for n in range(file.num_row_groups)]
    num_tokens = layers[0].num_rows
    top_k = len(layers[0]["expert_ids"][0])
    planes = [plane.tobytes() for layer in layers for plane in _planes(layer, num_experts)]
    codec = pa.Codec("zstd", compression_level=_ZSTD_LEVEL)

    def compress() -> None:
        for plane in planes:
            codec.compress(plane)

    record_bytes = len(layers) * top_k * (_id_bytes(num_experts) + 2) + _LABEL_BYTES
    return Floor(
        record_bytes,
        routing_file.stat().st_size / num_tokens,
        _COPIES * record_bytes * _copy_s_per_byte(),
        _least_cpu_s(compress) / num_tokens,
    )


def _planes(layer: pa.Table, num_experts: int) -> list[npt.NDArray[np.uint8]]:
    ids = layer["expert_ids"].combine_chunks().flatten().to_numpy()
    weights = layer["gate_weights"].combine_chunks().flatten().to_numpy()
    return byte_planes(ids, weights, num_experts)


def byte_planes(
    ids: npt.NDArray[np.int16], weights: npt.NDArray[np.float32], num_experts: int
) -> list[npt.NDArray[np.uint8]]:
    """First bytes of all ids, their second ones if they have two, and so for the weights.

    Args:
        ids: of any shape.
        weights: of any shape; only their upper halves, which are bfloat16, count.
        num_experts: says how wide a recorded id is.
    """
    halves = (weights.ravel().view(np.uint32) >> np.uint32(16)).astype(np.uint16)
    narrow = ids.ravel().astype(f"u{_id_bytes(num_experts)}")
    parts = [part.view(np.uint8).reshape(len(part), -1) for part in (narrow, halves)]
    return [np.ascontiguousarray(part[:, n]) for part in parts for n in range(part.shape[1])]


def _id_bytes(num_experts: int) -> int:
    return 1 if num_experts <= _SMALL_ID else 2


def _copy_s_per_byte() -> float:
    source = np.ones(_COPIED_BYTES, dtype=np.uint8)
    target = np.zeros_like(source)
    return _least_cpu_s(lambda: np.copyto(target, source)) / _COPIED_BYTES


def _least_cpu_s(work: Callable[[], None]) -> float:
    """Compute seconds of the cheapest of several tries; the first warms the caches."""
    spent = []
    for _ in range(_TRIES):
        began = time.process_time()
        work()
        spent.append(time.process_time() - began)
    return min(spent)
