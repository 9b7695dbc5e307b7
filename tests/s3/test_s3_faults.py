"""Servers that fail, stall and forget: nothing is lost, nothing is there twice."""

import pytest

from tests.s3.conftest import SECRET
from tests.store.conftest import make_rows, request_row, run_row
from tracer.errors import InputError
from tracer.store.lake import Lake
from tracer.store.run_writer import writing_run
from tracer.store.shard import ShardWriter
from tracer.workflow.verify import verify_lake

BATCHES = 3


def write_run(place):
    """As many of the batches as are not there yet, and what is then there."""
    lake = Lake.create(place)
    with writing_run(lake, run_row("r")) as target:
        todo = [f"q{n}" for n in range(BATCHES) if f"q{n}" not in target.done]
        for batch, request in enumerate(todo, target.next_batch):
            writer = ShardWriter(lake.storage, "r", num_experts=4, precision="f32")
            files = writer.write(f"{batch:06d}-w0", make_rows(request))
            target.commit(batch, files, [request_row(request)])


def assert_whole(place):
    lake = Lake.open(place)
    assert verify_lake(lake, None, repair=False, checked=lambda _: None).faults == []
    keys = lake.rows("routing", "r", ["request_id", "position", "layer_id"]).to_pylist()
    assert len(keys) == len({tuple(key.values()) for key in keys}) == BATCHES * 6
    assert [row["status"] for row in lake.runs()] == ["complete"]


@pytest.mark.parametrize("ways", [("refuse", "cut", "lose"), ("stall",)], ids=" ".join)
def test_spoilt_uploads_are_made_again(place, bad_server, server, monkeypatch, ways):
    """Every seventh PUT: of a shard, a lease, a note, a commit of delta-rs, in turn."""
    monkeypatch.setenv("TRACER_S3_TIMEOUT", "2")

    def rule(method, _, number):
        spoils = method == "PUT" and number % 7 == 0
        return ways[number // 7 % len(ways)] if spoils else "pass"

    bad = bad_server(rule)
    write_run(place)
    kinds = {path.split("/")[4] for _, _, path in bad.spoilt}
    assert {what for what, _, _ in bad.spoilt} == set(ways)
    assert len(bad.spoilt) >= 5
    assert len(kinds) >= 3, kinds
    monkeypatch.setenv("AWS_ENDPOINT_URL", server)
    assert_whole(place)


def test_spoilt_answers_are_asked_for_again(place, bad_server):
    """Every 23rd request that reads; by delta-rs, obstore and pyarrow."""

    def rule(method, _, number):
        spoils = method in ("GET", "HEAD") and number % 23 == 0
        return ("refuse", "cut")[number // 23 % 2] if spoils else "pass"

    bad = bad_server(rule)
    write_run(place)
    assert_whole(place)
    assert {what for what, _, _ in bad.spoilt} == {"refuse", "cut"}


def test_every_commit_whose_answer_is_lost_counts_once(place, bad_server, server, monkeypatch):
    """The client asks again, and is told that the version exists: by itself."""
    seen = set()

    def rule(method, path, _):
        if method == "PUT" and "/_delta_log/" in path and path not in seen:
            seen.add(path)
            return "lose"
        return "pass"

    bad_server(rule)
    write_run(place)
    assert len(seen) > 5 * BATCHES
    monkeypatch.setenv("AWS_ENDPOINT_URL", server)
    assert_whole(place)


def test_a_server_that_goes_away_leaves_whole_batches(place, bad_server, server, monkeypatch):
    """Told as one line without any key; the same command ends the run later."""
    bad = bad_server(lambda *_: "pass")

    def rule(method, path, _):
        return "refuse" if method == "PUT" and "/routing/r/000002" in path else "pass"

    bad._rule = rule
    monkeypatch.setattr("tracer.store.s3_storage._MOST_TRIES", 2)
    with pytest.raises(OSError, match="000002") as raised:
        write_run(place)
    assert SECRET not in str(raised.value)
    assert "\n" not in str(raised.value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", server)
    lake = Lake.open(place)
    assert lake.request_status("r") == {"q0": "complete", "q1": "complete"}
    assert verify_lake(lake, None, repair=False, checked=lambda _: None).faults == []
    write_run(place)
    assert_whole(place)


def test_a_server_without_conditional_writes_is_refused(place, bad_server):
    """As s3rver: of two writers that commit the same version, it would keep the later one."""
    bad_server(lambda method, *_: "forget" if method == "PUT" else "pass")
    with pytest.raises(InputError, match="replaces objects"):
        Lake.create(place)


def test_a_multipart_upload_that_breaks_off_leaves_nothing(place, bad_server, monkeypatch):
    """20 MB go up in three parts; of the second only half arrives, again and again."""

    def rule(method, path, _):
        return "cut" if method == "PUT" and "partNumber=2" in path else "pass"

    bad = bad_server(rule)
    monkeypatch.setattr("tracer.store.s3_storage._MOST_TRIES", 2)
    storage = Lake.create(place).storage
    with pytest.raises(OSError, match="big"):
        storage.write_file("routing/r/big.parquet", lambda file: file.write(bytes(20 << 20)))
    assert {what for what, _, _ in bad.spoilt} == {"cut"}
    assert storage.names("routing/r") == []
