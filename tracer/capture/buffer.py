"""Preallocated device memory that routers write their choices to.

Routers run inside CUDA graphs and compiled code, where Python does not run again after
recording. So the hook only copies into memory at a fixed address; everything else happens once
per step, outside. There is one block of memory. Compilers are given operators with declared
mutation and plain offsets into it, one mutated input instead of overlapping views; where Python
does run, views of the block that were made once spare the operators' dispatch.
"""

from dataclasses import dataclass

import torch

from tracer.capture.pack import pack
from tracer.capture.row_format import RowFormat

__all__ = ["RoutingBuffer", "record", "record_values"]

# All-ones bytes are no expert (uint8 255, int16 -1) and no position: a record that still holds
# them after a step was not written where we look.
_CLEARED = 0xFF
_ID_DTYPES = {1: torch.uint8, 2: torch.int16}
_WEIGHT_DTYPES = {2: torch.bfloat16, 4: torch.float32}

_library = torch.library.Library("moe_tracer", "DEF")
_library.define(
    "record(Tensor(a!) storage, Tensor topk_ids, Tensor topk_weights, int ids_at, int id_bytes,"
    " int weights_at, int weight_bytes, int first_row) -> ()"
)
_library.define(
    "record_values(Tensor(a!) storage, Tensor values, int at, ScalarType dtype, int first_row)"
    " -> ()"
)


def _column(  # noqa: PLR0917
    storage: torch.Tensor, first_row: int, rows: int, at: int, width: int, dtype: torch.dtype
) -> torch.Tensor:
    """Typed view [rows, width] of some bytes of each record."""
    part = storage.narrow(0, first_row, rows).narrow(1, at, width * dtype.itemsize)
    return part.view(dtype)


def _record(  # noqa: PLR0917 - an operator's arguments are flat
    storage: torch.Tensor,
    topk_ids: torch.Tensor,
    topk_weights: torch.Tensor,
    ids_at: int,
    id_bytes: int,
    weights_at: int,
    weight_bytes: int,
    first_row: int,
) -> None:
    rows, top_k = topk_ids.shape
    pack(
        _column(storage, first_row, rows, ids_at, top_k, _ID_DTYPES[id_bytes]),
        _column(storage, first_row, rows, weights_at, top_k, _WEIGHT_DTYPES[weight_bytes]),
        topk_ids,
        topk_weights,
    )


def _record_values(
    storage: torch.Tensor, values: torch.Tensor, at: int, dtype: torch.dtype, first_row: int
) -> None:
    rows, width = values.shape
    _column(storage, first_row, rows, at, width, dtype).copy_(values)


def _nothing(*_: object) -> None:
    """What compilers trace instead: the operators return nothing."""


_library.impl("record", _record, "CompositeExplicitAutograd")
_library.impl("record", _nothing, "Meta")
_library.impl("record_values", _record_values, "CompositeExplicitAutograd")
_library.impl("record_values", _nothing, "Meta")

record = torch.ops.moe_tracer.record
"""Write one router's output into the records of a step.

Args: storage uint8 [max_rows, row_bytes] (written), topk_ids any integer [rows, top_k],
topk_weights any float [rows, top_k], then the byte in the record and the bytes per value of
each, and the row the first token has.
"""

record_values = torch.ops.moe_tracer.record_values
"""Write further values [rows, width] of one layer, cast to ``dtype``, at byte ``at``."""


@dataclass(frozen=True, slots=True)
class _StepRows:
    """The first rows of a buffer, as ``RoutingBuffer`` has them all."""

    storage: torch.Tensor
    positions: torch.Tensor
    token_ids: torch.Tensor


class RoutingBuffer:
    """Records of one forward pass.

    row_format: of the records
    storage: uint8 [max_rows, row_format.row_bytes], at one address for the engine's life
    """

    def __init__(self, row_format: RowFormat, storage: torch.Tensor) -> None:
        self.row_format = row_format
        self.storage = storage
        columns = row_format.tensors(storage)
        self._all = _StepRows(storage, columns["position"][:, 0], columns["token_id"][:, 0])
        # Decoding repeats its number of rows, and slicing takes longer than copying a step of it.
        self._step, self._step_rows = self._all, len(storage)

    @classmethod
    def allocate(
        cls, row_format: RowFormat, max_rows: int, device: torch.device
    ) -> "RoutingBuffer":
        """Memory for one worker: ``max_rows * row_format.row_bytes`` bytes."""
        shape = (max_rows, row_format.row_bytes)
        return cls(row_format, torch.full(shape, _CLEARED, dtype=torch.uint8, device=device))

    def column(self, name: str, layer: int) -> torch.Tensor:
        """View [max_rows, width] of one layer's values of a field."""
        values: torch.Tensor = self.row_format.tensors(self.storage)[name][:, layer]
        return values

    def clear(self, num_rows: int) -> None:
        """Forget the rows the next pass will write, so that one it skips is noticed."""
        self._first(num_rows).storage.fill_(_CLEARED)

    def label(self, positions: torch.Tensor, token_ids: torch.Tensor) -> torch.Tensor:
        """Write position and token id of the first rows, any integer [n], on the device.

        Returns:
            ``storage`` of those rows.
        """
        rows = self._first(len(positions))
        rows.positions.copy_(positions)
        rows.token_ids.copy_(token_ids)
        return rows.storage

    def _first(self, num_rows: int) -> _StepRows:
        if self._step_rows != num_rows:
            every, self._step_rows = self._all, num_rows
            self._step = _StepRows(
                every.storage[:num_rows], every.positions[:num_rows], every.token_ids[:num_rows]
            )
        return self._step
