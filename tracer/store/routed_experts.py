"""Expert ids as vLLM's ``enable_return_routed_experts`` returns them, an array per request.

One .npz file: under each request id an array [tokens, layers, top_k] of integers. The second axis
is the decoder layer as the checkpoint numbers it, dense ones hold zeros; where it is as long as
`moe_layers`, it is those in order. Gate weights are not in it. Nothing in it is unpickled.
"""

import io
import math
import zipfile
import zlib
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.lib.format as npy
import numpy.typing as npt
import pyarrow as pa

from tracer.errors import DamagedDataError, InputError
from tracer.store.import_limits import Unpacked
from tracer.store.interchange_files import routing_columns, rows_of_ids
from tracer.store.run_rows import RoutingPart, RunRows

__all__ = ["read_routed_experts", "write_routed_experts"]

_MOST_CHOICES = 2**31  # of one request: what offsets of lists can count
_END = ".npy"
_MOST_HEADER = 12_000  # NumPy refuses longer ones than 10,000
# As rows: offsets of two lists, position, layer and the text's; an id and a weight.
_ROW_BYTES, _CHOICE_BYTES = 24, 6


def write_routed_experts(path: Path, rows: RunRows, done: Callable[[str], None]) -> int:
    """Write uint8 arrays, or uint16 beyond 256 experts, each as soon as its request is whole.

    Held are the requests of one batch: pipeline stages write a batch in one file each.

    Returns:
        Rows of routing.

    Raises:
        InputError: a request id that cannot be a name.
        DamagedDataError: as ``RunRows.parts``.
        OSError: the file cannot be written.
    """
    num_layers = max(rows.run["moe_layers"]) + 1
    dtype = np.uint8 if rows.run["num_experts"] <= 256 else np.uint16  # noqa: PLR2004 - a byte
    begun: dict[int, npt.NDArray[np.uint8 | np.uint16]] = {}
    written: set[int] = set()
    num_rows = 0
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:

        def write_whole_ones() -> None:
            whole = rows.whole()
            for number in [one for one in begun if whole[one]]:
                array = begun.pop(number)[: rows.num_routed(number)]
                with _entry(file, rows.requests[number]["request_id"]) as entry:
                    npy.write_array(entry, array, allow_pickle=False)  # type: ignore[no-untyped-call]
                written.add(number)

        for part in rows.parts(done, write_whole_ones):
            num_rows += len(part.positions)
            for number, places in _by_request(part):
                if number in written:
                    name = rows.requests[number]["request_id"]
                    raise DamagedDataError(f"request {name!r} has rows of routing twice")
                if number not in begun:
                    shape = (int(rows.lengths[number]), num_layers, rows.run["top_k"])
                    begun[number] = np.zeros(shape, dtype=dtype)
                key = part.positions[places], part.layers[places]
                begun[number][key] = part.expert_ids[places]
    return num_rows


def _entry(file: zipfile.ZipFile, request_id: str) -> IO[bytes]:
    info = zipfile.ZipInfo(request_id + _END)
    if info.filename != request_id + _END:
        raise InputError(f"request id {request_id!r} cannot be a name in an .npz file")
    info.compress_type = zipfile.ZIP_DEFLATED
    return file.open(info, "w", force_zip64=True)


def _by_request(part: RoutingPart) -> list[tuple[int, npt.NDArray[np.int64]]]:
    """(number, places of its rows) of each request of a part."""
    order = np.argsort(part.requests, kind="stable")
    numbers, starts = np.unique(part.requests[order], return_index=True)
    return list(zip(numbers.tolist(), np.split(order, starts[1:]), strict=True))


def read_routed_experts(
    path: Path,
    row: Mapping[str, Any],
    request_ids: Collection[str],
    limit: Unpacked | None = None,
) -> pa.Table:
    """The rows of routing, without token ids, every gate weight 1 / top_k.

    Args:
        path: the .npz file.
        row: of `runs`.
        request_ids: those that `requests` describes.
        limit: of what its arrays and the rows made of them come to.

    Raises:
        InputError: not an .npz file of integer arrays, or beyond the limit.
        DamagedDataError: shapes that do not fit the run, a request twice or not described, or a
            file that is cut short or says other sizes than it has.
    """
    parts = []
    limit = limit or Unpacked()
    try:
        with zipfile.ZipFile(path) as file:
            entries = {info.filename.removesuffix(_END): info for info in file.infolist()}
            if len(entries) != len(file.infolist()):
                raise DamagedDataError(f"{path} has a request twice")
            if unknown := sorted(set(entries) - set(request_ids)):
                raise DamagedDataError(f"{path} has request {unknown[0]!r}, requests has not")
            for name, info in entries.items():
                where = f"{path}, request {name!r}"
                if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                    # Python unpacks the others by the piece, however large that gets.
                    raise InputError(
                        f"{where}: packed in a way that is not read",
                        "write the file with numpy.savez_compressed.",
                    )
                # An entry never gives more bytes than it says.
                limit.take(path, info.file_size)
                with file.open(info) as entry:
                    ids = _array(entry, info.file_size, where, row)
                count = math.prod(ids.shape)
                per_row = _ROW_BYTES + len(name.encode())
                limit.take(path, count * _CHOICE_BYTES + count // row["top_k"] * per_row)
                parts.append(rows_of_ids(name, ids, row["moe_layers"]))
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError, OSError) as error:
        raise InputError(f"cannot read {path} as an .npz file: {error}") from error
    return pa.concat_tables(parts) if parts else routing_columns().empty_table()


def _array(entry: IO[bytes], size: int, name: str, row: Mapping[str, Any]) -> npt.NDArray[np.int16]:
    """One array: int16 [tokens, moe layers, top_k]. Its size is known before it is read."""
    # NumPy reads as many bytes of header as the file says before it looks at how many they are.
    head = io.BytesIO(entry.read(_MOST_HEADER))
    version = npy.read_magic(head)  # type: ignore[no-untyped-call]
    read_header = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
    if version not in read_header:
        raise InputError(f"{name}: unknown .npy version {version}")
    shape, by_column, dtype = read_header[version](head)  # type: ignore[no-untyped-call]
    if dtype.kind not in "ui":
        raise InputError(f"{name}: an array of {dtype}, not of integers")
    layers, top_k = row["moe_layers"], row["top_k"]
    fits = len(shape) == 3 and 0 < math.prod(shape) < _MOST_CHOICES and shape[2] == top_k  # noqa: PLR2004
    if not fits or not (shape[1] == len(layers) or max(layers) < shape[1] < 2**15):
        raise DamagedDataError(
            f"{name}: shape {shape} is not tokens, layers, top_k = {top_k}; the layers are either"
            f" the {len(layers)} of moe_layers or every one up to {max(layers)} and more"
        )
    num_bytes = math.prod(shape) * dtype.itemsize
    if head.tell() + num_bytes != size:
        raise DamagedDataError(f"{name}: {size} bytes do not hold an array {shape} of {dtype}")
    data = head.read(num_bytes)
    flat = np.frombuffer(data + entry.read(num_bytes - len(data)), dtype=dtype)
    ids = flat.reshape(shape, order="F" if by_column else "C")
    if shape[1] != len(layers):
        ids = ids[:, layers]
    if int(ids.min()) < 0 or int(ids.max()) >= row["num_experts"]:
        raise DamagedDataError(f"{name}: expert ids beyond 0 to {row['num_experts'] - 1}")
    return ids.astype(np.int16)
