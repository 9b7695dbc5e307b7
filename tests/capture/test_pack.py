"""Narrowing choices into records on the CPU: which rows, which bits."""

import subprocess
import sys

import pytest

torch = pytest.importorskip("torch", reason="needs vLLM: make setup")

from tracer.capture.pack import pack  # noqa: E402
from tracer.capture.row_format import Field, RowFormat  # noqa: E402

# float32 bits -> bfloat16 bits: a tie goes to the even neighbour, anything above it upwards
ROUNDED = {
    0x3F800000: 0x3F80,  # 1.0 is exact
    0x3F808000: 0x3F80,  # tie, the lower neighbour is even
    0x3F818000: 0x3F82,  # tie, the upper neighbour is even
    0x3F808001: 0x3F81,  # just above a tie
    0x3F80FFFF: 0x3F81,
    0x3F817FFF: 0x3F81,  # just below a tie
    0x00000001: 0x0000,  # the smallest subnormal
    0x80000000: 0x8000,  # minus zero
    0x7F7FFFFF: 0x7F80,  # above the largest bfloat16: infinity
}


def test_weights_round_to_nearest_even():
    bits = torch.tensor([list(ROUNDED)], dtype=torch.int64).to(torch.int32)
    stored = torch.zeros(1, len(ROUNDED), dtype=torch.bfloat16)
    pack(
        torch.zeros(1, len(ROUNDED), dtype=torch.int16),
        stored,
        torch.zeros(1, len(ROUNDED), dtype=torch.int32),
        bits.view(torch.float32),
    )
    assert (stored.view(torch.int16).to(torch.int64) & 0xFFFF).tolist() == [list(ROUNDED.values())]


def test_choices_land_in_their_layer_and_nothing_else_changes():
    """Two of three rows into layer 1 of 2: its two fields change, every other byte stays 0xFF."""
    form = RowFormat(
        2,
        (
            Field("gate_weights", torch.bfloat16, 3),
            Field("expert_ids", torch.uint8, 3),
            Field("position", torch.int32, 1, per_layer=False),
        ),
    )
    storage = torch.full((3, form.row_bytes), 0xFF, dtype=torch.uint8)
    fields = form.tensors(storage)

    pack(
        fields["expert_ids"][:2, 1],
        fields["gate_weights"][:2, 1],
        torch.tensor([[250, 0, 7], [1, 2, 3]]),
        torch.tensor([[0.5, 0.25, 0.125], [1.0, 2.0, -1.0]]),
    )

    # bf16 0.5 0.25 0.125 1 2 -1 little-endian; weights first, padded to 12 bytes, then ids to 8
    written = [
        [0x00, 0x3F, 0x80, 0x3E, 0x00, 0x3E],
        [0x80, 0x3F, 0x00, 0x40, 0x80, 0xBF],
    ]
    ids = [[250, 0, 7], [1, 2, 3]]
    assert storage.tolist() == [
        [*[0xFF] * 6, *written[0], *[0xFF] * 3, *ids[0], *[0xFF] * 6],
        [*[0xFF] * 6, *written[1], *[0xFF] * 3, *ids[1], *[0xFF] * 6],
        [0xFF] * 24,
    ]


@pytest.mark.parametrize(("narrow", "missing"), [(torch.uint8, 255), (torch.int16, -1)])
@pytest.mark.parametrize("wide", [torch.int32, torch.int64])
def test_a_missing_id_stays_all_ones(narrow, missing, wide):
    stored = torch.zeros(1, 2, dtype=narrow)
    pack(stored, torch.zeros(1, 2), torch.tensor([[-1, 3]], dtype=wide), torch.ones(1, 2))
    assert stored.tolist() == [[missing, 3]]


def test_no_rows_change_nothing():
    stored, weights = torch.full((2, 2), 9, dtype=torch.uint8), torch.zeros(2, 2)
    none = torch.empty(0, 2)
    pack(stored[:0], weights[:0], none.to(torch.int32), none)
    assert stored.tolist() == [[9, 9], [9, 9]]


def test_a_run_on_the_cpu_loads_no_compiler():
    """Importing the module and packing on the CPU leave Triton alone."""
    code = (
        "import sys, torch; before = set(sys.modules)\n"
        "from tracer.capture.pack import pack\n"
        "t = torch.ones(1, 1); i = torch.ones(1, 1, dtype=torch.int16); pack(i, t, i, t)\n"
        "print([m for m in set(sys.modules) - before if m.split('.')[0] == 'triton'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
