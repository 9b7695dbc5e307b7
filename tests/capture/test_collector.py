"""Joining steps to requests: preemption, rejected drafts, holes, contradictions."""

import numpy as np
import pyarrow.parquet as pq
import pytest

pytest.importorskip("torch", reason="needs vLLM: make setup")

from tracer.capture.collector import Collector, FinishedRequest
from tracer.capture.steps import Step
from tracer.errors import CaptureMismatchError
from tracer.store.shard import ShardWriter


@pytest.fixture
def collector(tmp_path):
    writer = ShardWriter(tmp_path, "r", num_experts=8, precision="f32")
    collector = Collector(writer, (0, 3), "w0")
    collector.start()
    yield collector
    collector.stop()


def step(*requests):
    """A step from (request, {position: (token, expert)}); both layers choose that expert."""
    names = [name for name, _ in requests]
    rows = [item for _, positions in requests for item in positions.items()]
    experts = np.array([[[expert, 7]] for _, (_, expert) in rows], dtype=np.int16)
    ids = np.concatenate([experts, experts], axis=1).transpose(1, 0, 2)
    return Step(
        names,
        [len(positions) for _, positions in requests],
        np.array([position for position, _ in rows], dtype=np.int32),
        np.array([token for _, (token, _) in rows], dtype=np.int32),
        ids,
        np.tile(np.array([0.5, 0.25], dtype=np.float32), (2, len(rows), 1)),
    )


def finished(name, tokens, prompt=2, cached=0):
    return FinishedRequest(name, f"row-{name}", "law", prompt, tokens, cached)


def written(collector, tmp_path):
    ((batch, files),) = collector.take_written(wait=True).items()
    assert {file.table for file in files} == {"routing", "tokens", "usage", "usage_by_domain"}
    table = pq.read_table(tmp_path / "routing" / "r" / f"{batch:06d}-w0.parquet").to_pylist()
    return {
        (row["request_id"], row["position"]): row["expert_ids"][0]
        for row in table
        if row["layer_id"] == 3
    }


def test_rows_of_interleaved_requests_find_their_request(collector, tmp_path):
    collector.receive(step(("a", {0: (10, 1), 1: (11, 2)}), ("b", {0: (20, 3)})))
    collector.receive(step(("b", {1: (21, 4)}), ("a", {2: (12, 5)})))
    collector.seal(0, [finished("a", [10, 11, 12, 13]), finished("b", [20, 21, 22])])
    assert written(collector, tmp_path) == {
        ("row-a", 0): 1,
        ("row-a", 1): 2,
        ("row-a", 2): 5,
        ("row-b", 0): 3,
        ("row-b", 1): 4,
    }


def test_the_last_write_to_a_position_wins(collector, tmp_path):
    """Preempted after two tokens, computed again from the start."""
    collector.receive(step(("a", {0: (10, 1), 1: (11, 1)})))
    collector.receive(step(("a", {0: (10, 2), 1: (11, 2), 2: (12, 2)})))
    collector.seal(0, [finished("a", [10, 11, 12, 13])])
    assert set(written(collector, tmp_path).values()) == {2}


def test_rejected_draft_tokens_fall_away(collector, tmp_path):
    """Positions 2 and 3 were drafts 90, 91; 12 was accepted instead, nothing after it."""
    collector.receive(step(("a", {0: (10, 1), 1: (11, 1), 2: (90, 4), 3: (91, 4)})))
    collector.receive(step(("a", {2: (12, 5)})))
    collector.seal(0, [finished("a", [10, 11, 12, 13])])
    assert written(collector, tmp_path) == {("row-a", 0): 1, ("row-a", 1): 1, ("row-a", 2): 5}


def test_cached_prompt_tokens_have_no_rows(collector, tmp_path):
    collector.receive(step(("a", {2: (12, 5)})))
    collector.seal(0, [finished("a", [10, 11, 12, 13], prompt=3, cached=2)])
    assert written(collector, tmp_path) == {("row-a", 2): 5}


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ({0: (10, 1)}, "1 of 2 tokens were not seen, the first at position 1"),
        ({0: (10, 1), 1: (99, 1)}, "token 99 was seen at position 1, the engine returned 11"),
        ({0: (10, 1), 1: (11, -1)}, "layer 0 did not report its choice at position 1"),
        ({}, "2 of 2 tokens were not seen"),
    ],
)
def test_what_contradicts_the_engine_is_not_written(collector, tmp_path, rows, words):
    if rows:
        collector.receive(step(("a", rows)))
    collector.seal(0, [finished("a", [10, 11, 12])])
    with pytest.raises(CaptureMismatchError, match=words) as caught:
        collector.take_written(wait=True)
    assert caught.value.exit_code == 3
    assert not list(tmp_path.rglob("*.parquet"))


def test_an_error_is_told_to_the_driver_and_never_to_the_forward_pass(collector):
    collector.seal(0, [finished("a", [10, 11, 12])])
    collector._queue.join()
    collector.receive(step(("a", {0: (10, 1)})))
    with pytest.raises(CaptureMismatchError):
        collector.seal(1, [])


def test_a_batch_of_skipped_rows_alone_writes_no_file(collector, tmp_path):
    collector.seal(0, [])
    assert collector.take_written(wait=True) == {0: []}
    assert not list(tmp_path.rglob("*.parquet"))


def test_a_request_does_not_keep_the_rows_of_its_neighbours_in_memory(collector):
    """One row of 2 layers x 2 choices: 8 bytes of ids, not those of the whole step."""
    collector.receive(step(("a", {0: (10, 1)}), ("b", {n: (n, 3) for n in range(500)})))
    collector._queue.join()
    (rows,) = collector._open["a"]
    assert rows.expert_ids.base is None
    assert rows.expert_ids.nbytes == 8
