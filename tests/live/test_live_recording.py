"""What becomes of requests between the engine's steps and the lake, without a server."""

import pytest

pytest.importorskip("torch", reason="needs vLLM: make setup")

from tests.live.traffic import LAYERS, TOP_K, Traffic, expert_of
from tracer.capture.row_log import RowLog
from tracer.store.lake import Lake


@pytest.fixture
def traffic(tmp_path):
    made = []

    def make(**settings):
        made.append(Traffic(tmp_path / "lake", **settings))
        return made[-1]

    yield make
    for one in made:
        if one.writer._thread.is_alive():
            one.close()
        assert one.errors == []


def requests(tmp_path):
    lake = Lake.open(tmp_path / "lake")
    columns = ["run_id", "request_id", "domain", "labels", "status", "finish_reason"]
    columns += ["num_prompt_tokens", "num_generated_tokens", "cached_prefix_tokens"]
    return {
        row["request_id"]: {**row, "labels": dict(row["labels"])}
        for run in lake.runs()
        for row in lake.rows("requests", run["run_id"], columns).to_pylist()
    }


def routing(tmp_path):
    """First expert by (request, position, layer)."""
    lake = Lake.open(tmp_path / "lake")
    columns = ["request_id", "position", "layer_id", "expert_ids"]
    return {
        (row["request_id"], row["position"], row["layer_id"]): sorted(row["expert_ids"])
        for run in lake.runs()
        for row in lake.rows("routing", run["run_id"], columns).to_pylist()
    }


def expected(name, tokens):
    return {
        (name, position, layer): sorted(
            (expert_of(token, position, layer) + more) % 8 for more in range(TOP_K)
        )
        for position, token in enumerate(tokens)
        for layer in LAYERS
    }


def test_rows_labels_and_phases_of_interleaved_requests(traffic, tmp_path):
    one = traffic(opt="out")
    extra = {"tracer_domain": "law", "tracer_label_tenant": "a", "tracer_label_other": "x"}
    one.step(("a", {0: 5, 1: 6}), ("b", {0: 7}), new=[("a", [5, 6], extra), ("b", [7, 8, 9], None)])
    one.step(("b", {1: 8, 2: 9}), ("a", {2: 10}))  # b's prompt comes in pieces
    one.step(("b", {3: 11}), ended=[("a", "length", [10, 12])])
    one.step(ended=[("b", "stop", [11, 13])])
    one.close()
    assert routing(tmp_path) == {
        **expected("a", [5, 6, 10]),
        **expected("b", [7, 8, 9, 11]),
    }
    found = requests(tmp_path)
    assert found["a"]["domain"] == "law"
    assert found["a"]["labels"] == {"tenant": "a"}
    assert found["b"]["domain"] == "none"
    assert {name: row["finish_reason"] for name, row in found.items()} == {
        "a": "length",
        "b": "stop",
    }
    assert (found["b"]["num_prompt_tokens"], found["b"]["num_generated_tokens"]) == (3, 2)
    assert (one.counts.seen, one.counts.chosen, one.counts.recorded) == (2, 2, 2)
    assert one.counts.tokens == 7
    assert one.counts.dropped == {}


def test_requests_that_decline_leave_no_row_and_cost_no_copy(traffic, tmp_path):
    one = traffic(opt="out")
    taken = []
    take_now = one.drain.take_now
    one.drain.take_now = lambda rows: taken.append(len(rows)) or take_now(rows)
    one.run("no", [1, 2], [3, 4, 5], extra={"tracer_capture": "0"})
    assert taken == []
    one.step(
        ("no", {0: 1, 1: 2}),
        ("yes", {0: 1}),
        new=[("no", [1, 2], {"tracer_capture": "0"}), ("yes", [1], None)],
    )
    one.step(ended=[("no", "stop", [9]), ("yes", "stop", [9])])
    one.close()
    assert taken == [3]
    assert routing(tmp_path) == expected("yes", [1])
    assert one.counts.left_out == {"declined": 2}


def test_an_aborted_request_is_listed_without_rows(traffic, tmp_path):
    one = traffic()
    one.run("gone", [1, 2, 3], [4, 5], reason="abort")
    one.run("kept", [1, 2, 3], [4, 5])
    one.close()
    assert routing(tmp_path) == expected("kept", [1, 2, 3, 4])
    assert {name: row["status"] for name, row in requests(tmp_path).items()} == {
        "gone": "aborted",
        "kept": "complete",
    }
    assert one.counts.dropped == {"aborted": 1}


def test_preempted_rows_rejected_drafts_and_late_tokens(traffic, tmp_path):
    one = traffic()
    one.step(("p", {0: 1, 1: 2}), new=[("p", [1, 2], None)])
    one.step(("p", {2: 3, 3: 99}))  # a draft that is rejected
    one.step(("p", {0: 1, 1: 2, 2: 3, 3: 4}))  # preempted: computed again
    one.step(("p", {4: 5, 5: 6}))  # runs on behind its end
    one.step(ended=[("p", "stop", [3, 4, 5])])
    one.close()
    assert routing(tmp_path) == expected("p", [1, 2, 3, 4])


def test_tokens_from_the_prefix_cache_are_counted(traffic, tmp_path):
    one = traffic()
    one.step(("c", {2: 3}), new=[("c", [1, 2, 3], None)], cached=[("c", 2)])
    one.step(ended=[("c", "stop", [4])])
    one.close()
    assert routing(tmp_path) == {
        key: value for key, value in expected("c", [1, 2, 3]).items() if key[1] == 2
    }
    assert requests(tmp_path)["c"]["cached_prefix_tokens"] == 2


def test_a_request_whose_rows_are_wrong_is_dropped_alone(traffic, tmp_path):
    one = traffic()
    one.step(("a", {0: 1}), ("hole", {0: 1}), new=[("a", [1], None), ("hole", [1, 2], None)])
    one.step(ended=[("a", "stop", [5]), ("hole", "stop", [5])])
    one.close()
    assert set(requests(tmp_path)) == {"a"}
    assert one.counts.dropped == {"mismatch": 1}
    assert "hole" in one.counts.last_error
    (run,) = Lake.open(tmp_path / "lake").runs()
    assert run["num_dropped"] == 1


def test_a_layer_that_reports_nothing_is_no_row(traffic, tmp_path):
    one = traffic()
    one.runner.silent_layers = (3,)
    one.run("a", [1, 2], [3, 4])
    one.close()
    assert one.counts.dropped == {"mismatch": 1}
    assert one.counts.recorded == 0


def test_a_full_ring_loses_whole_requests_and_serving_goes_on(traffic, tmp_path):
    one = traffic(ring_slots=1)
    held = one.drain.take_now(one.buffer.storage)  # nobody empties the ring
    one.run("lost", [1, 2, 3], [4, 5])
    held.release()
    one.run("kept", [1, 2, 3], [4, 5])
    one.close()
    assert set(requests(tmp_path)) == {"kept"}
    assert one.counts.dropped == {"queue_full": 1}
    assert routing(tmp_path) == expected("kept", [1, 2, 3, 4])


def test_memory_is_bounded_while_the_lake_cannot_be_written(traffic, tmp_path):
    """The lake is a file at first: batches wait, new requests are dropped, then all is written."""
    (tmp_path / "lake").write_text("in the way")
    one = traffic(queue_mb=1, seal_seconds=0.5)
    prompt = [number % 50 for number in range(60)]
    most = 0
    for number in range(700):
        one.run(f"q{number:03d}", prompt, [1, 2])
        one.tick(0.01)
        most = max(most, one.recorder.host_bytes)
    assert most <= 1_000_000
    dropped = one.counts.dropped["queue_full"]
    assert 0 < dropped < 700
    assert one.counts.recorded == 0
    assert one.counts.last_error
    (tmp_path / "lake").unlink()
    one.settle()
    one.run("after", prompt, [1, 2])
    one.close()
    assert one.counts.recorded == 700 - dropped + 1
    assert one.counts.last_error is None
    assert len(requests(tmp_path)) == 700 - dropped + 1
    assert sum(run["num_dropped"] for run in Lake.open(tmp_path / "lake").runs()) == dropped


def test_open_requests_that_outgrow_the_memory_are_lost_whole(traffic, tmp_path):
    one = traffic(queue_mb=1)
    one.step(("small", {0: 1}), new=[("small", [1], None)])
    one.step(("big", {0: 0}), new=[("big", [0], None)])
    for position in range(1, 40_000, 60):
        one.step(("big", {position + more: 1 for more in range(60)}))
        if position % 3001 == 1:
            one.recorder.join()
    one.recorder.join()
    assert one.recorder.host_bytes < 1_000_000
    one.step(ended=[("big", "length", [1] * 40_000), ("small", "stop", [2])])
    one.close()
    assert one.counts.dropped == {"queue_full": 1}
    assert set(requests(tmp_path)) == {"small"}


def test_stopped_and_started_while_serving(traffic, tmp_path):
    one = traffic()
    one.intake.recording = False
    one.run("off", [1], [2])
    one.intake.recording = True
    one.run("on", [1], [2])
    one.close()
    assert set(requests(tmp_path)) == {"on"}
    assert one.counts.left_out == {"stopped": 1}


def test_an_error_of_the_recorder_does_not_reach_serving(traffic):
    one = traffic()
    one.step(("open", {0: 1}), new=[("open", [1], None)])
    one.intake._chooser = None
    one.run("a", [1], [2])  # asserts that the engine gets its output
    assert [type(error) for error in one.errors] == [AttributeError]
    one.recorder.join()
    assert one.counts.dropped == {"error": 1}
    one.errors.clear()


def test_an_error_behind_the_engine_ends_recording_and_gives_memory_back(traffic, monkeypatch):
    one = traffic(ring_slots=2)
    monkeypatch.setattr(RowLog, "append", None)
    for number in range(20):
        one.run(f"q{number}", list(range(40)), [1, 2])
    one.recorder.join()
    assert [type(error) for error in one.errors] == [TypeError]
    # `queue_full`: those that began after it.
    assert set(one.counts.dropped) - {"queue_full"} == {"error"}
    assert sum(one.counts.dropped.values()) == one.counts.chosen == 20
    assert one.drain.take_now(one.buffer.storage) is not None
    assert one.recorder.host_bytes == 0
    one.errors.clear()


def test_an_error_while_sealing_counts_what_was_finished(traffic, monkeypatch):
    one = traffic()
    one.run("done", [1, 2], [3, 4])
    one.run("gone", [1, 2], [3, 4], reason="abort")
    one.step(("open", {0: 1}), new=[("open", [1], None)])
    one.recorder.join()
    monkeypatch.setattr(RowLog, "take", None)
    one.tick(6)
    assert [type(error) for error in one.errors] == [TypeError]
    assert one.counts.dropped == {"error": 3}
    assert one.counts.pending == 0
    one.errors.clear()


def test_an_error_while_rows_are_forgotten_does_not_end_the_thread(traffic, monkeypatch):
    one = traffic(ring_slots=1)
    monkeypatch.setattr(RowLog, "take", None)
    one.run("gone", [1, 2], [3, 4], reason="abort")
    one.recorder.join()
    assert [type(error) for error in one.errors] == [TypeError]
    one.run("later", list(range(40)), [3, 4])
    one.recorder.join()
    assert one.recorder._thread.is_alive()
    assert one.drain.take_now(one.buffer.storage) is not None  # its memory came back
    assert one.counts.chosen == sum(one.counts.dropped.values())
    one.errors.clear()


def test_a_request_that_two_threads_give_up_is_counted_once(traffic):
    """The ring is full while the recorder has given the request up, and has not said so yet."""
    one = traffic()
    one.recorder._forget = lambda _: None
    one.step(("a", {0: 1}), new=[("a", [1], None)])
    one.recorder.join()
    one.recorder._limit = 0
    one.step(("a", {1: 2}))
    one.recorder.join()
    assert one.counts.dropped == {"queue_full": 1}
    one.drain.take_now = lambda _: None
    one.step(("a", {2: 3}))
    one.recorder.join()
    assert one.counts.dropped == {"queue_full": 1}


def test_a_preempted_request_that_is_told_as_new_is_met_once(traffic, tmp_path):
    """As vLLM's V2 runner has it."""
    one = traffic(opt="out")
    new = [("a", [1, 2], None), ("no", [1, 2], {"tracer_capture": "0"})]
    rows = [(name, {0: 1, 1: 2}) for name, *_ in new]
    one.step(*rows, new=new)
    one.step(*rows, new=new)
    one.step(ended=[("a", "stop", [3]), ("no", "stop", [3])])
    one.run("no", [1, 2], [3])  # another request of that name
    one.close()
    assert (one.counts.seen, one.counts.chosen) == (3, 2)
    assert one.counts.left_out == {"declined": 1}
    assert set(requests(tmp_path)) == {"a", "no"}
    assert one.intake._met == set()


def test_a_long_prefix_from_the_cache_takes_no_memory_of_rows(traffic, tmp_path):
    (tmp_path / "lake").write_text("in the way")
    one = traffic(queue_mb=1)
    prompt = list(range(30_000))
    for name in ("c", "d", "hole"):
        one.step((name, {29_999: 29_999}), new=[(name, prompt, None)], cached=[(name, 29_999)])
        output = [4] if name != "hole" else [4, 5]
        one.step(ended=[(name, "stop", output)])
    one.recorder.join()
    one.tick(6)
    assert one.recorder.host_bytes < 1_000_000 < 3 * 29_999 * one.recorder._row_bytes
    (tmp_path / "lake").unlink()
    one.close()
    assert one.counts.dropped == {"mismatch": 1}
    assert requests(tmp_path)["d"]["cached_prefix_tokens"] == 29_999
    assert set(routing(tmp_path)) == {(n, 29_999, layer) for n in ("c", "d") for layer in LAYERS}


def test_a_clock_that_is_set_back_delays_nothing(traffic):
    one = traffic(run_hours=24)
    one.run("a", [1, 2], [3, 4])
    one.recorder.join()
    one.tick(-1800)
    one.settle()
    assert one.counts.recorded == 1


def test_aborted_requests_are_sealed_before_they_fill_the_memory(traffic, tmp_path):
    (tmp_path / "lake").write_text("in the way")
    one = traffic(queue_mb=1)
    for number in range(900):
        name = f"q{number}"
        one.step((name, {0: 1}), new=[(name, [1], None)])
        one.step(ended=[(name, "abort", [])])
        one.recorder.join()
    assert one.recorder.host_bytes < 1_000_000
    assert one.counts.dropped["queue_full"] > 0  # none begin while those wait
    (tmp_path / "lake").unlink()
    one.close()
    assert one.counts.pending == 0
