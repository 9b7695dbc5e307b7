"""Random writing, crashing, resuming, repeating and merging, against a model in memory.

The model is the list of requests that must be there. Whatever happens, a request that `requests`
names has all its rows, and no key occurs twice; once a writer has finished, the lake holds exactly
the model's requests.
"""

import os
import shutil
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.store.conftest import make_rows, request_row, run_row, together
from tracer.store.commit import commit_batch
from tracer.store.compact import compact_run
from tracer.store.lake import Lake
from tracer.store.manifests import read_batch
from tracer.store.removed_files import remove_expired
from tracer.store.run_writer import writing_run
from tracer.store.shard import ShardWriter
from tracer.workflow.verify import verify_lake

RUN = "r"
ROWS_OF_A_REQUEST = 6  # three tokens in two layers


class Crash(BaseException):
    """The end of the process; nothing in between may catch it."""


class Machine(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="exactly-once-"))
        self.lake = Lake.create(self.folder / "lake")
        self.wanted = []
        self.crashed = False

    def teardown(self):
        shutil.rmtree(self.folder)

    def write(self, crash_after=None):
        """Go on with the run until all wanted requests are there, two in a batch."""
        syncs = 0

        def sync(handle):
            nonlocal syncs
            syncs += 1
            if syncs == crash_after:
                raise Crash
            original(handle)

        original = os.fsync
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "fsync", sync)
            with writing_run(self.lake, run_row(RUN)) as target:
                todo = [name for name in self.wanted if name not in target.done]
                writer = ShardWriter(self.lake.storage, RUN, num_experts=4, precision="f32")
                batch = target.next_batch
                for first in range(0, len(todo), 2):
                    names = todo[first : first + 2]
                    rows = together(*(make_rows(name) for name in names))
                    files = writer.write(f"{batch:06d}-w0", rows)
                    target.commit(batch, files, [request_row(name) for name in names])
                    batch += 1

    @rule(more=st.integers(1, 5))
    def request_more_and_write(self, more):
        self.wanted += [f"q{len(self.wanted) + number:03d}" for number in range(more)]
        self.write()
        self.crashed = False

    @rule(more=st.integers(1, 5), crash_after=st.integers(1, 80))
    def request_more_and_crash(self, more, crash_after):
        """At the n-th time that something is made durable: before or after any file or commit."""
        self.wanted += [f"q{len(self.wanted) + number:03d}" for number in range(more)]
        try:
            self.write(crash_after)
        except Crash:
            self.crashed = True
        else:
            self.crashed = False

    @rule()
    def resume(self):
        self.write()
        self.crashed = False

    @rule(number=st.integers(0, 30))
    def commit_an_old_batch_again(self, number):
        storage = self.lake.storage
        batches = [
            name for name in storage.names(f"_tracer/committed/{RUN}") if Path(name).stem.isdigit()
        ]
        if batches:
            batch = batches[number % len(batches)]
            files = read_batch(storage, batch)
            gone = storage.missing([f"{file.table}/{file.path}" for file in files])  # expired ones
            files = [file for file in files if f"{file.table}/{file.path}" not in gone]
            commit_batch(self.lake, RUN, int(Path(batch).stem), files)

    @precondition(lambda self: bool(self.lake.runs()))
    @rule(values=st.sampled_from([30, 100, 8_000_000]))
    def compact(self, values):
        compact_run(self.lake, RUN, lambda _: None, values=values)

    @rule()
    def expire(self):
        remove_expired(self.lake, 0)

    @invariant()
    def every_named_request_is_whole_and_no_key_occurs_twice(self):
        requests = self.lake.rows("requests", RUN, ["request_id"])["request_id"].to_pylist()
        assert len(set(requests)) == len(requests)
        assert set(requests) <= set(self.wanted)
        rows = self.lake.rows("routing", RUN, ["request_id", "layer_id", "position"]).to_pylist()
        keys = Counter(tuple(row.values()) for row in rows)
        assert all(count == 1 for count in keys.values())
        counts = Counter(request_id for request_id, _, _ in keys)
        assert all(counts[request_id] == ROWS_OF_A_REQUEST for request_id in requests)
        if not self.crashed:
            assert sorted(requests) == self.wanted
            assert len(rows) == ROWS_OF_A_REQUEST * len(self.wanted)

    @invariant()
    def a_finished_run_has_no_faults(self):
        if not self.crashed:
            assert verify_lake(self.lake, None, repair=False, checked=lambda _: None).faults == []


Machine.TestCase.settings = settings(
    max_examples=6,
    stateful_step_count=10,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    print_blob=True,
)
TestExactlyOnce = Machine.TestCase
