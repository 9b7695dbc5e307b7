"""Joining steps to requests: preemption, rejected drafts, holes, contradictions."""

import pyarrow.parquet as pq
import pytest

torch = pytest.importorskip("torch", reason="needs vLLM: make setup")

from tracer.capture.collector import Collector  # noqa: E402
from tracer.capture.drain import Drain  # noqa: E402
from tracer.capture.finished import FinishedRequest  # noqa: E402
from tracer.capture.row_format import Field, RowFormat  # noqa: E402
from tracer.capture.steps import Step  # noqa: E402
from tracer.errors import CaptureMismatchError  # noqa: E402
from tracer.store.lake_location import open_storage  # noqa: E402
from tracer.store.shard import ShardWriter  # noqa: E402

FORMAT = RowFormat(
    2,
    (
        Field("gate_weights", torch.float32, 2),
        Field("expert_ids", torch.uint8, 2),
        Field("position", torch.int32, 1, per_layer=False),
        Field("token_id", torch.int32, 1, per_layer=False),
    ),
)


@pytest.fixture
def collector(tmp_path):
    writer = ShardWriter(open_storage(tmp_path), "r", num_experts=8, precision="f32")
    collector = Collector(writer, FORMAT, (0, 3), "w0")
    collector.start()
    yield collector
    collector.stop()


@pytest.fixture(scope="module")
def drain():
    return Drain(FORMAT.row_bytes, 600, torch.device("cpu"), slots=2)


@pytest.fixture
def step(drain):
    """A step from (request, {position: (token, expert)}); both layers choose that expert."""

    def make(*requests, muted=(), ended=(), skipped=()):
        rows = [item for _, positions in requests for item in positions.items()]
        storage = torch.full((len(rows), FORMAT.row_bytes), 0xFF, dtype=torch.uint8)
        columns = FORMAT.tensors(storage)
        for row, (position, (token, expert)) in enumerate(rows):
            columns["position"][row] = position
            columns["token_id"][row] = token
            if expert is not None:
                columns["expert_ids"][row] = torch.tensor([expert, 7], dtype=torch.uint8)
                columns["gate_weights"][row] = torch.tensor([0.5, 0.25])
        return Step(
            [name for name, _ in requests],
            [len(positions) for _, positions in requests],
            drain.take(storage),
            muted,
            ended,
            skipped,
        )

    return make


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


def test_rows_of_interleaved_requests_find_their_request(collector, tmp_path, step):
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


def test_the_last_write_to_a_position_wins(collector, tmp_path, step):
    """Preempted after two tokens, computed again from the start."""
    collector.receive(step(("a", {0: (10, 1), 1: (11, 1)})))
    collector.receive(step(("a", {0: (10, 2), 1: (11, 2), 2: (12, 2)})))
    collector.seal(0, [finished("a", [10, 11, 12, 13])])
    assert set(written(collector, tmp_path).values()) == {2}


def test_rejected_draft_tokens_fall_away(collector, tmp_path, step):
    """Positions 2 and 3 were drafts 90, 91; 12 was accepted instead, nothing after it."""
    collector.receive(step(("a", {0: (10, 1), 1: (11, 1), 2: (90, 4), 3: (91, 4)})))
    collector.receive(step(("a", {2: (12, 5)})))
    collector.seal(0, [finished("a", [10, 11, 12, 13])])
    assert written(collector, tmp_path) == {("row-a", 0): 1, ("row-a", 1): 1, ("row-a", 2): 5}


def test_cached_prompt_tokens_have_no_rows(collector, tmp_path, step):
    collector.receive(step(("a", {2: (12, 5)}), skipped=[("a", 2)]))
    collector.seal(0, [finished("a", [10, 11, 12, 13], prompt=3, cached=2)])
    assert written(collector, tmp_path) == {("row-a", 2): 5}
    assert collector.take_cached() == {}


def test_tokens_cached_after_a_preemption_are_counted(collector, tmp_path, step):
    """Preempted behind position 1; in the meantime another request filled the cache up to 2."""
    collector.receive(step(("a", {1: (11, 5)}), skipped=[("a", 1)]))
    collector.receive(step(("a", {3: (13, 6)}), skipped=[("a", 3)]))
    collector.seal(0, [finished("a", [10, 11, 12, 13, 14], prompt=4, cached=1)])
    assert written(collector, tmp_path) == {("row-a", 1): 5, ("row-a", 3): 6}
    assert collector.take_cached() == {"row-a": 2}


def test_a_prefix_run_again_after_a_preemption_is_no_longer_missing(collector, tmp_path, step):
    """Its cached blocks were given away while it waited."""
    collector.receive(step(("a", {2: (12, 5)}), skipped=[("a", 2)]))
    collector.receive(step(("a", {0: (10, 1), 1: (11, 2), 2: (12, 5)})))
    collector.seal(0, [finished("a", [10, 11, 12, 13], prompt=3, cached=2)])
    assert len(written(collector, tmp_path)) == 3
    assert collector.take_cached() == {"row-a": 0}


def test_a_cache_does_not_explain_what_it_did_not_hold(collector, step):
    """The engine skipped one token of three; the second is missing, too."""
    collector.receive(step(("a", {2: (12, 5)}), skipped=[("a", 1)]))
    collector.seal(0, [finished("a", [10, 11, 12, 13], prompt=3, cached=1)])
    with pytest.raises(CaptureMismatchError, match="1 of 3 tokens were not seen"):
        collector.take_written(wait=True)


def test_what_a_request_skipped_is_forgotten_with_it(collector, step):
    collector.receive(step(("a", {2: (12, 5)}), ("b", {1: (21, 5)}), skipped=[("a", 2), ("b", 1)]))
    collector.discard(["b"])
    collector.seal(0, [finished("a", [10, 11, 12, 13], prompt=3, cached=2)])
    collector.take_written(wait=True)
    assert collector._skipped == {}


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ({0: (10, 1)}, "1 of 2 tokens were not seen, the first at position 1"),
        ({0: (10, 1), 1: (99, 1)}, "token 99 was seen at position 1, the engine returned 11"),
        ({0: (10, 1), 1: (11, None)}, "layer 0 did not report its choice at position 1"),
        ({}, "2 of 2 tokens were not seen"),
    ],
)
def test_what_contradicts_the_engine_is_not_written(collector, tmp_path, rows, words, step):
    if rows:
        collector.receive(step(("a", rows)))
    collector.seal(0, [finished("a", [10, 11, 12])])
    with pytest.raises(CaptureMismatchError, match=words) as caught:
        collector.take_written(wait=True)
    assert caught.value.exit_code == 3
    assert not list(tmp_path.rglob("*.parquet"))


def test_an_error_is_told_to_the_driver_and_never_to_the_forward_pass(collector, step):
    collector.seal(0, [finished("a", [10, 11, 12])])
    collector._arrived.join()
    collector._to_write.join()
    collector.receive(step(("a", {0: (10, 1)})))
    with pytest.raises(CaptureMismatchError):
        collector.seal(1, [])


def test_a_batch_of_skipped_rows_alone_writes_no_file(collector, tmp_path):
    collector.seal(0, [])
    assert collector.take_written(wait=True) == {0: []}
    assert not list(tmp_path.rglob("*.parquet"))


def test_requests_that_are_switched_off_leave_no_rows(collector, tmp_path, step):
    """b is not to be recorded, in the same steps as a."""
    collector.receive(step(("b", {0: (20, 3)}), ("a", {0: (10, 1)}), muted=["b"]))
    collector.receive(step(("a", {1: (11, 2)}), ("b", {1: (21, 4)})))
    collector.seal(0, [finished("a", [10, 11, 12])])
    assert written(collector, tmp_path) == {("row-a", 0): 1, ("row-a", 1): 2}
    assert collector._log.num_rows == 0


def test_discarded_requests_leave_no_rows(collector, tmp_path, step):
    collector.receive(step(("a", {0: (10, 1)}), ("b", {0: (20, 3)})))
    collector.discard(["b"])
    collector.receive(step(("a", {1: (11, 2)}), ("b", {1: (21, 3)})))
    collector.seal(0, [finished("a", [10, 11, 12])])
    assert written(collector, tmp_path) == {("row-a", 0): 1, ("row-a", 1): 2}
    assert collector._log.num_rows == 0


def test_rows_after_a_request_was_taken_are_dropped(collector, tmp_path, step):
    """An engine core that runs ahead forwards one token more than the front end wants."""
    collector.receive(step(("a", {0: (10, 1), 1: (11, 2)})))
    collector.seal(0, [finished("a", [10, 11, 12])])
    collector.receive(step(("a", {2: (12, 5)}), ("b", {0: (20, 3)})))
    collector.receive(step(("b", {1: (21, 3)}), ended=["a"]))
    assert written(collector, tmp_path) == {("row-a", 0): 1, ("row-a", 1): 2}
    collector.seal(1, [finished("b", [20, 21, 22])])
    assert written(collector, tmp_path) == {("row-b", 0): 3, ("row-b", 1): 3}
    assert collector._log.num_rows == 0


def test_a_later_stage_writes_no_tokens(tmp_path, step):
    writer = ShardWriter(open_storage(tmp_path), "r", num_experts=8, precision="f32")
    collector = Collector(writer, FORMAT, (2, 3), "w1", tokens=False)
    collector.start()
    collector.receive(step(("a", {0: (10, 1), 1: (11, 2)})))
    collector.seal(0, [finished("a", [10, 11, 12])])
    ((_, files),) = collector.take_written(wait=True).items()
    collector.stop()
    assert {file.table for file in files} == {"routing", "usage", "usage_by_domain"}
