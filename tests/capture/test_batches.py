"""A batch is committed once, and only when every stage of a pipeline has written its part."""

from dataclasses import asdict, dataclass, field

import pytest

from tracer.capture.batches import Batch, Batches
from tracer.capture.recording import seal_is_due
from tracer.errors import EngineFailedError
from tracer.store.shard import ShardFile


def shard(path):
    return ShardFile(**{**dict.fromkeys(ShardFile.__dataclass_fields__, 0), "path": path})


@dataclass
class Stages:
    """Two recording workers and one that does not; answers to collect are set by the test."""

    num_recording: int = 2
    answers: list = field(default_factory=list)
    sealed: list = field(default_factory=list)

    def call(self, method, *arguments):
        if method == "tracer_seal":
            self.sealed.append(arguments)
            return [None] * 3
        assert method == "tracer_collect"
        return self.answers.pop(0)


@dataclass
class Lake:
    commits: list = field(default_factory=list)

    def commit(self, number, shards, requests):
        self.commits.append((number, [file.path for file in shards], requests))
        return 10 * len(shards)


def written(*batches, **more):
    return {"written": [[n, [asdict(shard(path))]] for n, path in batches], **more}


def sealed(stages, *numbers):
    lake = Lake()
    batches = Batches(stages, lake)
    for number in numbers:
        row = {"request_id": f"r{number}", "cached_prefix_tokens": 32}
        following = batches.seal(Batch(number, [row], [[f"r{number}-x"]]))
        assert following == Batch(number + 1)
    return batches, lake


def test_a_batch_waits_for_the_stage_that_is_behind():
    """The first stage is ahead by a batch; 10 bytes for each of a batch's two files."""
    stages = Stages(
        answers=[
            [written((0, "a0"), (1, "a1")), None, written()],
            [written(), None, written((0, "b0"))],
            [written(), None, written((1, "b1"))],
        ]
    )
    batches, lake = sealed(stages, 0, 1)
    assert stages.sealed == [(0, [["r0-x"]]), (1, [["r1-x"]])]
    assert batches.commit(wait=False) == 0
    assert lake.commits == []
    assert batches.commit(wait=False) == 20
    assert [(n, files) for n, files, _ in lake.commits] == [(0, ["a0", "b0"])]
    assert batches
    assert batches.commit(wait=True) == 20
    assert [(n, files) for n, files, _ in lake.commits[1:]] == [(1, ["a1", "b1"])]
    assert not batches


def test_a_stage_that_never_writes_is_an_error():
    stages = Stages(answers=[[written((0, "a0")), None, written()]])
    batches, lake = sealed(stages, 0)
    with pytest.raises(EngineFailedError, match="batch 0 was not written by every worker"):
        batches.commit(wait=True)
    assert lake.commits == []


def test_workers_know_better_what_the_prefix_cache_answered():
    """Request r1 has 64 prompt tokens without rows, not 32 as vLLM said when it first ran."""
    answers = [
        written((0, "a0"), (1, "a1"), cached={"r1": 64}),
        None,
        written((0, "b0"), (1, "b1")),
    ]
    batches, lake = sealed(Stages(answers=[answers]), 0, 1)
    batches.commit(wait=False)
    rows = [row for _, _, requests in lake.commits for row in requests]
    assert rows == [
        {"request_id": "r0", "cached_prefix_tokens": 32},
        {"request_id": "r1", "cached_prefix_tokens": 64},
    ]


@pytest.mark.parametrize(
    ("num_choices", "seconds", "due"),
    [
        (7_999_999, 60.0, False),
        (8_000_000, 0.0, True),
        (1, 60.1, True),
    ],
)
def test_a_batch_is_sealed_when_it_is_large_or_late(num_choices, seconds, due):
    assert seal_is_due(num_choices, seconds) is due
