"""The recording operators and their memory, with a router stand-in; real routers: tests/engine."""

import pytest

torch = pytest.importorskip("torch", reason="needs vLLM: make setup")

from tracer.capture.attach import _writer  # noqa: E402
from tracer.capture.buffer import RoutingBuffer, record, record_values  # noqa: E402
from tracer.capture.row_format import Field, RowFormat, id_dtype  # noqa: E402

CPU = torch.device("cpu")


def make(ids=torch.uint8, weights=torch.float32):
    row_format = RowFormat(
        2,
        (
            Field("gate_weights", weights, 2),
            Field("expert_ids", ids, 2),
            Field("router_logits", torch.float16, 3),
            Field("position", torch.int32, 1, per_layer=False),
            Field("token_id", torch.int32, 1, per_layer=False),
        ),
    )
    return RoutingBuffer.allocate(row_format, 4, CPU)


def write(buffer, layer, ids, weights, first_row=0):
    place = buffer.row_format.place
    record(
        buffer.storage, ids, weights, *place("expert_ids", layer), *place("gate_weights", layer),
        first_row,
    )  # fmt: skip


def column(buffer, name):
    return buffer.row_format.tensors(buffer.storage)[name]


@pytest.mark.parametrize(("ids", "missing"), [(torch.uint8, 255), (torch.int16, -1)])
@pytest.mark.parametrize("weights", [torch.bfloat16, torch.float32])
def test_record_writes_only_its_rows_and_layer(ids, missing, weights):
    buffer = make(ids, weights)
    write(
        buffer, 1,
        torch.tensor([[3, 1], [0, 2]], dtype=torch.int32),
        torch.tensor([[0.5, 0.25], [0.75, 0.125]], dtype=torch.bfloat16),
        first_row=1,
    )  # fmt: skip
    none = [missing, missing]
    assert column(buffer, "expert_ids").tolist() == [
        [none, none], [none, [3, 1]], [none, [0, 2]], [none, none],
    ]  # fmt: skip
    assert column(buffer, "gate_weights")[1:3, 1].tolist() == [[0.5, 0.25], [0.75, 0.125]]


def test_bfloat16_records_round_to_nearest_even():
    """1 + 2^-8 lies between 1 and 1 + 2^-7 and goes to the even one; a little more goes up."""
    buffer = make(weights=torch.bfloat16)
    write(buffer, 0, torch.tensor([[0, 1]]), torch.tensor([[1 + 2**-8, 1 + 2**-8 + 2**-16]]))
    assert column(buffer, "gate_weights")[0, 0].tolist() == [1.0, 1 + 2**-7]


def test_clear_makes_an_unwritten_row_visible():
    buffer = make()
    ids = torch.ones((4, 2), dtype=torch.int64)
    write(buffer, 0, ids, ids.float())
    buffer.clear(2)
    assert column(buffer, "expert_ids")[:, 0].tolist() == [[255, 255]] * 2 + [[1, 1]] * 2


def test_rows_are_labelled_with_position_and_token():
    buffer = make()
    buffer.label(torch.tensor([7, 8]), torch.tensor([70_000, 80_000], dtype=torch.int32))
    assert column(buffer, "position")[:, 0].tolist() == [7, 8, -1, -1]
    assert column(buffer, "token_id")[:, 0].tolist() == [70_000, 80_000, -1, -1]


def test_further_values_are_cast_to_their_field():
    buffer = make()
    at, _ = buffer.row_format.place("router_logits", 1)
    record_values(buffer.storage, torch.tensor([[1.0, -2.5, 3.0001]]), at, torch.float16, 2)
    assert column(buffer, "router_logits")[2, 1].tolist() == [1.0, -2.5, 3.0]


def test_record_survives_compilation():
    """Traced with fullgraph, as vLLM does on a CPU, the copies still happen on every call."""
    buffer = make()
    at, _ = buffer.row_format.place("router_logits", 0)

    def layer(logits):
        weights, ids = logits.softmax(-1).topk(2)
        write(buffer, 0, ids, weights)
        record_values(buffer.storage, logits, at, torch.float16, 0)
        return weights.sum()

    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    for logits in (torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[3.0, 2.0, 1.0]])):
        compiled(logits)
        assert column(buffer, "expert_ids")[0, 0].tolist() == logits.topk(2).indices[0].tolist()
        assert column(buffer, "router_logits")[0, 0].tolist() == logits[0].tolist()


class Logits:
    """An extra with the one further field of ``make``."""

    fields = (Field("router_logits", torch.float16, 3),)


@pytest.mark.parametrize("weights", [torch.bfloat16, torch.float32])
def test_compiled_code_and_python_write_the_same_bytes(weights):
    """Growing, shrinking and equal steps, from other rows of the buffer on."""
    python, traced = make(weights=weights), make(weights=weights)
    write_python, write_traced = (_writer(one, 1, [Logits()]) for one in (python, traced))

    def layer(logits, first_row):
        weights, ids = logits.softmax(-1).topk(2)
        write_traced([ids, weights, logits], first_row)
        return weights.sum()

    torch.compiler.reset()  # it refuses a function of too many shapes
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    torch.manual_seed(0)
    for rows, first_row in ((2, 0), (2, 0), (4, 0), (1, 3), (1, 0), (2, 1), (2, 2), (3, 0)):
        logits = torch.randn(rows, 3)
        top, ids = logits.softmax(-1).topk(2)
        write_python([ids, top, logits], first_row)
        compiled(logits, first_row)
        assert torch.equal(python.storage, traced.storage)
        written = slice(first_row, first_row + rows)
        assert column(python, "expert_ids")[written, 1].tolist() == ids.tolist()
    assert (column(python, "expert_ids")[:, 0] == 255).all()


@pytest.mark.parametrize(
    ("num_experts", "dtype"), [(8, torch.uint8), (255, torch.uint8), (256, torch.int16)]
)
def test_ids_take_one_byte_while_all_ones_is_no_expert(num_experts, dtype):
    assert id_dtype(num_experts) is dtype


def test_fields_lie_side_by_side_at_multiples_of_four():
    """2 x 2 bfloat16, 2 x 3 bytes and two int32: 8, 6 rounded to 8, 4, 4."""
    row_format = RowFormat(
        2,
        (
            Field("gate_weights", torch.bfloat16, 2),
            Field("expert_ids", torch.uint8, 3),
            Field("position", torch.int32, 1, per_layer=False),
            Field("token_id", torch.int32, 1, per_layer=False),
        ),
    )
    assert row_format.offsets == {
        "gate_weights": 0, "expert_ids": 8, "position": 16, "token_id": 20,
    }  # fmt: skip
    assert row_format.row_bytes == 24
    assert row_format.place("expert_ids", 1) == (11, 1)
