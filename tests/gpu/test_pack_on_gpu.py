"""The compiled Triton kernel against torch's casts on the CPU."""

import torch

from tests.gpu import pack_cases
from tracer.capture import pack, pack_kernel


def test_the_kernel_stores_what_torch_would_cast(device):
    assert pack_cases.compare(device) == {
        "checked": 720,
        "wrong": [],
        "rounded_otherwise": 0,
        "nan_lost": 0,
    }


def test_packing_on_a_gpu_is_the_kernel(device):
    """Else every other check here would pass with two copies."""
    assert pack._kernel() is pack_kernel.pack_rows
    stored = torch.zeros(5, 8, dtype=torch.uint8, device=device)
    narrow = torch.zeros(5, 8, dtype=torch.bfloat16, device=device)
    ids = torch.full((4, 8), 200, dtype=torch.int32, device=device)
    pack.pack(stored[:4], narrow[:4], ids, torch.ones(4, 8, device=device))
    assert stored.tolist() == [[200] * 8] * 4 + [[0] * 8]
    assert narrow.tolist() == [[1.0] * 8] * 4 + [[0.0] * 8]
