"""The recording operator and the buffers, with a router stand-in; real routers: tests/engine."""

import pytest

torch = pytest.importorskip("torch", reason="needs vLLM: make setup")

from tracer.capture.buffer import MISSING, RoutingBuffer, record  # noqa: E402


@pytest.fixture
def buffer():
    return RoutingBuffer.allocate(2, max_tokens=4, top_k=2, device=torch.device("cpu"))


def test_record_writes_only_the_rows_of_the_pass(buffer):
    ids = torch.tensor([[3, 1], [0, 2]], dtype=torch.int32)
    weights = torch.tensor([[0.5, 0.25], [0.75, 0.125]], dtype=torch.bfloat16)
    record(buffer.expert_ids[1], buffer.gate_weights[1], ids, weights)
    expert_ids, gate_weights = buffer.snapshot(3)
    assert expert_ids.tolist() == [
        [[MISSING, MISSING]] * 3,
        [[3, 1], [0, 2], [MISSING, MISSING]],
    ]
    assert gate_weights[1, :2].tolist() == [[0.5, 0.25], [0.75, 0.125]]


def test_clear_makes_an_unwritten_row_visible(buffer):
    ids = torch.ones((4, 2), dtype=torch.int64)
    record(buffer.expert_ids[0], buffer.gate_weights[0], ids, ids.float())
    buffer.clear(2)
    assert buffer.expert_ids[0].tolist() == [[MISSING] * 2] * 2 + [[1, 1]] * 2


def test_a_snapshot_does_not_change_with_the_buffer(buffer):
    expert_ids, _ = buffer.snapshot(2)
    ids = torch.ones((2, 2), dtype=torch.int32)
    record(buffer.expert_ids[0], buffer.gate_weights[0], ids, ids.float())
    assert (expert_ids == MISSING).all()


def test_record_survives_compilation(buffer):
    """Traced with fullgraph, as vLLM does on a CPU, the copy still happens on every call."""

    def layer(logits):
        weights, ids = logits.softmax(-1).topk(2)
        record(buffer.expert_ids[0], buffer.gate_weights[0], ids, weights)
        return weights.sum()

    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    for logits in (torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[3.0, 2.0, 1.0]])):
        compiled(logits)
        assert buffer.expert_ids[0, 0].tolist() == logits.topk(2).indices[0].tolist()
