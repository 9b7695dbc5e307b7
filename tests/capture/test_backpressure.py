"""A writer that cannot keep up holds the engine's thread; memory stays, no row is lost."""

import errno
import os
import threading
import time
import tracemalloc

import numpy as np
import pyarrow.parquet as pq
import pytest

torch = pytest.importorskip("torch", reason="needs vLLM: make setup")

from tracer.capture import row_log  # noqa: E402
from tracer.capture.collector import Collector  # noqa: E402
from tracer.capture.drain import Drain  # noqa: E402
from tracer.capture.finished import FinishedRequest  # noqa: E402
from tracer.capture.row_format import Field, RowFormat  # noqa: E402
from tracer.capture.steps import Step  # noqa: E402
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
SLOTS = 3
# A batch: 4 requests that run together, 5 steps of 50 tokens each; one more token is sampled.
REQUESTS, STEPS, STEP_TOKENS = 4, 5, 50
BATCH_TOKENS = REQUESTS * STEPS * STEP_TOKENS
# Batches beyond the one still gathered: being written, waiting for that, waiting to wait.
BATCHES_HELD = 3
LONG = 60.0


def records(step, step_tokens):
    """One step of any batch: expert (position + layer) % 7 with 0.5, expert 7 with 0.25."""
    storage = torch.zeros((REQUESTS * step_tokens, FORMAT.row_bytes), dtype=torch.uint8)
    position = torch.arange(step_tokens).repeat(REQUESTS) + step * step_tokens
    columns = FORMAT.tensors(storage)
    columns["position"][:, 0] = position
    columns["token_id"][:, 0] = 10 + position
    columns["expert_ids"][:, :, 0] = (position[:, None] + torch.arange(2)) % 7
    columns["expert_ids"][:, :, 1] = 7
    columns["gate_weights"][:] = torch.tensor([0.5, 0.25])
    return storage


class Run:
    """An engine that does nothing but forward, on a thread of its own.

    forwarded: steps it was let go on with; most_bytes: the most the collector held unsealed
    """

    def __init__(self, lake, batches, step_tokens=STEP_TOKENS):
        self._records = [records(step, step_tokens) for step in range(STEPS)]
        self._counts = [step_tokens] * REQUESTS
        self._tokens = np.arange(10, 10 + STEPS * step_tokens + 1)
        self.drain = Drain(FORMAT.row_bytes, sum(self._counts), torch.device("cpu"), slots=SLOTS)
        writer = ShardWriter(open_storage(lake), "r", num_experts=8, precision="f32")
        self.collector = Collector(writer, FORMAT, (0, 3), "w0")
        self.collector.start()
        self.forwarded = self.most_bytes = 0
        self.error = None
        self._thread = threading.Thread(target=self._forward, args=(batches,))
        self._thread.start()

    def _forward(self, batches):
        try:
            for batch in range(batches):
                names = [f"{batch}-{number}" for number in range(REQUESTS)]
                for rows in self._records:
                    slot = self.drain.take(rows)
                    self.forwarded += 1
                    self.collector.receive(Step(names, self._counts, slot))
                    self.most_bytes = max(self.most_bytes, self.collector.host_bytes)
                self.collector.seal(
                    batch, [FinishedRequest(name, name, "law", 30, self._tokens) for name in names]
                )
        except Exception as error:
            self.error = error

    def wait(self):
        """To the end of the engine and of the writing; returns the batches written."""
        self._thread.join(LONG)
        assert not self._thread.is_alive()
        try:
            return sorted(self.collector.take_written(wait=True))
        finally:
            self.collector.stop()


def tables(lake):
    """Every file's content by its path in the lake."""
    return {
        path.relative_to(lake).as_posix(): pq.read_table(path)
        for path in sorted(lake.rglob("*.parquet"))
    }


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    """So that the log's rounding is small against a batch: 1,024 bytes are 39 records."""
    monkeypatch.setattr(row_log, "_CHUNK_BYTES", 1024)


@pytest.fixture
def disk(monkeypatch):
    """What every write to the disk waits for at its end; set ``act`` to change it."""

    class Disk:
        def act(self):
            pass

    disk = Disk()
    fsync = os.fsync

    def sync(handle):
        disk.act()
        fsync(handle)

    monkeypatch.setattr(os, "fsync", sync)
    return disk


def log_bytes(tokens):
    """What the row log says it takes for so many tokens: whole chunks of 39 records."""
    rows_of_chunk = 1024 // FORMAT.row_bytes
    return -(-tokens // rows_of_chunk) * rows_of_chunk * (FORMAT.row_bytes + 4)


def until(condition):
    end = time.monotonic() + LONG
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_stalled_writer_stops_the_engine_after_so_many_steps(tmp_path, disk):
    """Three batches wait on their way to the disk, then every slot holds a step, then no more."""
    gate = threading.Event()
    disk.act = lambda: gate.wait(LONG)
    run = Run(tmp_path / "stalled", batches=12)
    most = BATCHES_HELD * STEPS + SLOTS
    until(lambda: run.forwarded == most)
    time.sleep(0.3)
    assert run.forwarded == most
    assert run.most_bytes <= log_bytes(BATCH_TOKENS)
    gate.set()
    assert run.wait() == list(range(12))
    assert run.forwarded == 12 * STEPS
    assert run.drain.stalls > 0
    assert run.most_bytes <= log_bytes(BATCH_TOKENS)

    plain = Run(tmp_path / "plain", batches=12)
    assert plain.wait() == list(range(12))
    assert tables(tmp_path / "stalled") == tables(tmp_path / "plain")


def test_a_slow_disk_loses_no_row(tmp_path, disk):
    disk.act = lambda: time.sleep(0.02)
    run = Run(tmp_path, batches=8)
    assert run.wait() == list(range(8))
    assert run.drain.stalls > 0
    files = {name: table for name, table in tables(tmp_path).items() if name.startswith("routing/")}
    assert len(files) == 8
    for name, table in files.items():
        batch = int(name.split("/")[-1].split("-")[0])
        rows = table.sort_by([("layer_id", "ascending"), ("request_id", "ascending")])
        position = np.tile(np.arange(STEPS * STEP_TOKENS), 2 * REQUESTS)
        layer = np.repeat([0, 1], BATCH_TOKENS)
        assert rows["position"].to_numpy().tolist() == position.tolist()
        assert set(rows["request_id"].to_pylist()) == {f"{batch}-{n}" for n in range(REQUESTS)}
        assert rows["expert_ids"].to_pylist() == [
            [first, 7] for first in ((position + layer) % 7).tolist()
        ]


def test_memory_does_not_grow_with_the_run(tmp_path, disk):
    """Four times the batches on a slow disk, and not twice the peak, below what the parts allow.

    The peak moves by a quarter with how the threads fall; growth with the run would be fourfold.

    The log holds a batch, works on it with 40 bytes a record, and a batch waits in three places,
    each with positions and token ids besides; the writer's arrays over a batch take 100 bytes a
    record (request, position, phase, and sums of one layer's choices).
    """
    disk.act = lambda: time.sleep(0.01)
    step_tokens = 1000
    batch = STEPS * REQUESTS * step_tokens

    def peak(lake, batches):
        run = Run(lake, batches, step_tokens)
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        run.wait()
        return tracemalloc.get_traced_memory()[1] - before

    tracemalloc.start()
    try:
        peak(tmp_path / "warm", 1)  # imports and caches
        short, long = peak(tmp_path / "short", 5), peak(tmp_path / "long", 20)
    finally:
        tracemalloc.stop()
    most = log_bytes(batch) + batch * (40 + BATCHES_HELD * (FORMAT.row_bytes + 8) + 100)
    assert long < 2 * short
    assert long < most


def test_a_full_disk_ends_the_stall_and_is_told(tmp_path, disk):
    """The engine is not left waiting for slots that nobody would empty any more."""
    gate = threading.Event()

    def fill_up():
        gate.wait(LONG)
        raise OSError(errno.ENOSPC, "No space left on device")

    disk.act = fill_up
    run = Run(tmp_path, batches=12)
    until(lambda: run.forwarded == BATCHES_HELD * STEPS + SLOTS)
    gate.set()
    with pytest.raises(OSError, match="No space left"):
        run.wait()
    # The engine met the error at a seal, or forwarded everything before it was set.
    assert run.error is None or run.error.errno == errno.ENOSPC
    assert not list(tmp_path.rglob("*.parquet"))
