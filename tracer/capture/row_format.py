"""The bytes recorded per token: which fields, how wide, where.

All fields of a token lie side by side in one record, so that a step's tokens are one contiguous
block: cleared by one fill, snapshot by one copy, moved to the host by one transfer. Ids take one
byte where the experts are few, weights two where they are stored with bfloat16 precision.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

__all__ = ["Field", "RowFormat", "id_dtype"]

_NUMPY: dict[torch.dtype, np.dtype[Any]] = {
    torch.uint8: np.dtype(np.uint8),
    torch.int16: np.dtype(np.int16),
    torch.int32: np.dtype(np.int32),
    torch.float16: np.dtype(np.float16),
    torch.bfloat16: np.dtype(np.uint16),  # the upper half of a float32; numpy has none
    torch.float32: np.dtype(np.float32),
}
_ALIGNMENT = 4


def id_dtype(num_experts: int) -> torch.dtype:
    """Smallest dtype for expert ids whose all-ones pattern is no expert: uint8 or int16."""
    return torch.uint8 if num_experts <= 255 else torch.int16  # noqa: PLR2004


@dataclass(frozen=True, slots=True)
class Field:
    """One quantity of the record.

    width: values per token and layer; per_layer False: one set of values per token
    """

    name: str
    dtype: torch.dtype
    width: int
    per_layer: bool = True


@dataclass(frozen=True)
class RowFormat:
    """Layout of the record of one token: fields in order, each aligned to four bytes."""

    num_layers: int
    fields: tuple[Field, ...]

    @cached_property
    def offsets(self) -> dict[str, int]:
        """Byte at which each field begins."""
        offsets, at = {}, 0
        for field in self.fields:
            offsets[field.name] = at
            at += -(-self._field_bytes(field) // _ALIGNMENT) * _ALIGNMENT
        return offsets

    @cached_property
    def row_bytes(self) -> int:
        """Bytes of one token's record."""
        last = self.fields[-1]
        end = self.offsets[last.name] + self._field_bytes(last)
        return -(-end // _ALIGNMENT) * _ALIGNMENT

    def _field_bytes(self, field: Field) -> int:
        layers = self.num_layers if field.per_layer else 1
        return int(layers * field.width * field.dtype.itemsize)

    def width(self, name: str) -> int:
        """Values per token and layer of a field."""
        return next(field.width for field in self.fields if field.name == name)

    def place(self, name: str, layer: int) -> tuple[int, int]:
        """(byte at which a layer's values of a field begin, bytes per value)."""
        field = next(field for field in self.fields if field.name == name)
        return self.offsets[name] + layer * field.width * field.dtype.itemsize, field.dtype.itemsize

    def tensors(self, storage: torch.Tensor) -> dict[str, torch.Tensor]:
        """Views of uint8 [n, row_bytes]: [n, layers, width] by name, or [n, width]."""
        views = {}
        for field in self.fields:
            begin = self.offsets[field.name]
            part = storage[:, begin : begin + self._field_bytes(field)].view(field.dtype)
            views[field.name] = (
                part.unflatten(1, (self.num_layers, field.width)) if field.per_layer else part
            )
        return views

    def array(self, storage: npt.NDArray[np.uint8], name: str) -> npt.NDArray[Any]:
        """View of one field of uint8 [n, row_bytes]: [n, layers, width], or [n, width]."""
        field = next(field for field in self.fields if field.name == name)
        begin = self.offsets[name]
        part: npt.NDArray[Any] = storage[:, begin : begin + self._field_bytes(field)]
        part = part.view(_NUMPY[field.dtype])
        if not field.per_layer:
            return part
        return part.reshape(len(part), self.num_layers, field.width)
