"""Shapes, dtypes and strides that the Triton kernel is checked with, interpreted or on a GPU."""

import itertools
import random

import torch

from tracer.capture.pack_kernel import pack_rows
from tracer.capture.row_format import Field, RowFormat, id_dtype

LAYERS = 3


def compare(device):
    """How the kernel differs from torch's casts on the CPU; every number but "checked" must be 0.

    720 cases = 5 expert counts * 12 k * 2 id types * 3 weight types * 2 stored types; rows and
    strides are drawn for each. Then 40,000 random float32 are rounded.
    """
    generator, chance = torch.Generator().manual_seed(0), random.Random(0)
    checked, wrong = 0, []
    for experts, top_k, *dtypes in itertools.product(
        (16, 64, 255, 256, 512),
        range(1, 13),
        (torch.int32, torch.int64),
        (torch.float32, torch.bfloat16, torch.float16),
        (torch.bfloat16, torch.float32),
    ):
        rows = chance.choice((0, 1, 7, 150))  # 150 rows take several blocks
        how = chance.choice(("contiguous", "transposed", "part"))
        case = (experts, top_k, rows, *dtypes, how)
        if _differences(case, generator, device):
            wrong.append(str(case))
        checked += 1
    return {"checked": checked, "wrong": wrong, **_rounding(generator, device)}


def _differences(case, generator, device):
    """Bytes of the record that differ after layer 1 of 3 was packed."""
    experts, top_k, rows, ids_type, from_type, stored_type, how = case
    form = RowFormat(
        LAYERS,
        (
            Field("gate_weights", stored_type, top_k),
            Field("expert_ids", id_dtype(experts), top_k),
            Field("position", torch.int32, 1, per_layer=False),
        ),
    )
    expected = torch.full((rows + 2, form.row_bytes), 0xFF, dtype=torch.uint8)
    storage = expected.clone().to(device)
    ids = torch.randint(-1, experts, (rows, top_k), generator=generator).to(ids_type)
    weights = _hard_weights(rows, top_k, generator).to(from_type)

    fields, wanted = form.tensors(storage), form.tensors(expected)
    wanted["expert_ids"][:rows, 1] = ids.to(id_dtype(experts))
    wanted["gate_weights"][:rows, 1] = weights.to(stored_type)
    pack_rows(
        fields["expert_ids"][:, 1],
        fields["gate_weights"][:, 1],
        _strided(ids.to(device), how),
        _strided(weights.to(device), how),
    )
    return int((storage.cpu() != expected).sum())


def _hard_weights(rows, top_k, generator):
    """float32 [rows, top_k] from 1e-4 to 6e4, every second one halfway between two bfloat16.

    Nothing subnormal in any type: Triton's interpreter widens subnormal bfloat16 wrongly.
    """
    bits = torch.randint(0x38D1B718, 0x476A6000, (rows * top_k,), generator=generator)
    bits[::2] = bits[::2] // 2**16 * 2**16 + 2**15
    signs = torch.randint(0, 2, bits.shape, generator=generator) * 2 - 1
    return (bits.to(torch.int32).view(torch.float32) * signs).reshape(rows, top_k)


def _strided(values, how):
    """The same values, contiguous, as columns of a transposed tensor, or as part of a wider one."""
    if how == "transposed":
        return values.t().contiguous().t()
    if how == "part":
        return torch.cat([values, values], dim=1)[:, : values.shape[1]]
    return values


def _rounding(generator, device):
    """Any float32 at all to bfloat16: infinities, NaN and subnormals among them."""
    bits = torch.randint(-(2**31), 2**31, (5000, 8), generator=generator).to(torch.int32)
    bits[0, :6] = torch.tensor([1, -(2**31), 0x7F7FFFFF, 0x7F800000, 0x7FFFFFFF, 0x007FFFFF])
    weights = bits.view(torch.float32)
    stored = torch.zeros(5000, 8, dtype=torch.bfloat16, device=device)
    ids = torch.zeros(5000, 8, dtype=torch.int32, device=device)
    pack_rows(ids.to(torch.int16), stored, ids, weights.to(device))
    number, stored = ~weights.isnan(), stored.cpu()
    same = stored.view(torch.int16)[number] == weights.bfloat16().view(torch.int16)[number]
    return {
        "rounded_otherwise": int((~same).sum()),
        "nan_lost": int((~stored[~number].isnan()).sum()),
    }
