# ruff: noqa: INP001
"""Memory and time of writing and merging a run: many small requests, and 100 million choices.

    python benchmarks/run_memory.py            # both, some minutes
    python benchmarks/run_memory.py --divide 20

Made-up rows of OLMoE-1B-7B's shape go through what a capture writes with: ``ShardWriter``, a commit
for each batch, ``compact_run``. "many" is 10,000 requests of 20 tokens, a batch of every 100 of
them, so that there is much to merge; "large" is requests of 1,000 tokens in batches as a capture
makes them. Printed is how far the resident memory rises beside what the comment at
``SHARD_CHOICES`` says; the last line is one JSON object.
"""

import argparse
import json
import os
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Self

import numpy as np

from tracer.bench.made_lake import begin_run, request_rows
from tracer.bench.made_routing import MADE_MODELS
from tracer.store.compact import compact_run
from tracer.store.run_writer import SHARD_CHOICES
from tracer.store.shard import ShardWriter
from tracer.store.shard_rows import ShardRows, TracedRequest

MODEL = MADE_MODELS["olmoe"]
PER_TOKEN = MODEL.num_layers * MODEL.top_k
# (requests, tokens of each, requests in a batch)
LOADS = {
    "many": (10_000, 20, 100),
    "large": (100_000_000 // PER_TOKEN // 1000, 1000, SHARD_CHOICES // PER_TOKEN // 1000),
}


def resident() -> int:
    """Bytes of this process; Linux."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


class Watch:
    """How far resident memory rose in the block, and how long it took."""

    def __enter__(self) -> Self:
        self.before = self.most = resident()
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.look, daemon=True)
        self.thread.start()
        self.began = time.perf_counter()
        return self

    def look(self) -> None:
        """Keep the most, until the block ends."""
        while not self.over.wait(0.01):
            self.most = max(self.most, resident())

    def __exit__(self, *_: object) -> None:
        self.seconds = time.perf_counter() - self.began
        self.over.set()
        self.thread.join()
        self.rise = max(self.most, resident()) - self.before


def made_rows(names: list[str], tokens: int) -> ShardRows:
    """Choices by chance, the same for every request of a place."""
    rng = np.random.default_rng(0)
    count = len(names) * tokens
    shape = (count, MODEL.num_layers)
    first = rng.integers(0, MODEL.num_experts, shape)
    # An odd step through 64 experts meets none twice.
    step = rng.integers(0, MODEL.num_experts // 2, shape) * 2 + 1
    ids = (first[..., None] + step[..., None] * np.arange(MODEL.top_k)) % MODEL.num_experts
    weights = rng.random((*shape, MODEL.top_k), dtype=np.float32)
    token_ids = np.zeros(tokens + 1, dtype=np.int32)
    requests = [TracedRequest(name, "law", tokens // 2, token_ids, tokens) for name in names]
    positions = np.tile(np.arange(tokens, dtype=np.int32), len(names))
    return ShardRows(range(MODEL.num_layers), requests, positions, ids.astype(np.uint8), weights)


def measure(load: tuple[int, int, int], divide: int) -> dict[str, Any]:
    """Write and merge one of ``LOADS``, ``divide`` times fewer requests."""
    requests, tokens, together = load
    requests = max(together, requests // divide)
    with tempfile.TemporaryDirectory(prefix="tracer-bench-") as folder:
        run = begin_run(Path(folder) / "lake", MODEL, "one")
        writer = ShardWriter(run.lake.storage, "one", MODEL.num_experts, "bf16")
        rows = made_rows([f"{number:08d}" for number in range(together)], tokens)
        # Libraries load and compile with the first shard and merge.
        warm = begin_run(Path(folder) / "warm", MODEL, "one")
        warm_writer = ShardWriter(warm.lake.storage, "one", MODEL.num_experts, "bf16")
        for batch in range(2):
            names = [f"{batch}-{number}" for number in range(2)]
            few = made_rows(names, 10)
            warm.commit(
                batch, warm_writer.write(f"{batch:06d}-w0", few), request_rows(few.requests)
            )
        compact_run(warm.lake, "one", lambda _: None)
        halves = []
        with Watch() as written:
            batches = -(-requests // together)
            for batch in range(batches):
                names = [f"{batch:06d}-{number}" for number in range(together)]
                mine = ShardRows(
                    rows.layer_ids,
                    [
                        TracedRequest(name, "law", tokens // 2, one.token_ids, tokens)
                        for name, one in zip(names, rows.requests, strict=True)
                    ],
                    rows.positions,
                    rows.expert_ids,
                    rows.gate_weights,
                )
                files = writer.write(f"{batch:06d}-w0", mine)
                run.commit(batch, files, request_rows(mine.requests))
                if batch + 1 == batches // 2 or batch + 1 == batches:
                    halves.append(time.perf_counter() - written.began)
        with Watch() as merged:
            files = compact_run(run.lake, "one", lambda _: None)
    choices = together * tokens * PER_TOKEN
    return {
        "requests": batches * together,
        "choices": batches * choices,
        "batches": batches,
        "write_seconds": round(written.seconds, 1),
        "first_half_seconds": round(halves[0], 1),
        "write_peak_bytes": written.rise,
        # All layers of a small shard are sorted together, see ShardRows.choices; an entry of
        # `usage` for each expert that a request chose in a phase and layer.
        "write_formula_bytes": choices // MODEL.num_layers * (10 + 6 * MODEL.num_layers)
        + 25 * together * 2 * MODEL.num_layers * min(MODEL.num_experts, tokens // 2 * MODEL.top_k),
        "compact_seconds": round(merged.seconds, 1),
        "compact_peak_bytes": merged.rise,
        "files_before": files.before,
        "files_after": files.after,
    }


def main() -> None:
    """Measure and tell."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--load", choices=[*LOADS, "both"], default="both")
    options.add_argument("--divide", type=int, default=1, help="this many times fewer requests")
    told = options.parse_args()
    results = {}
    for name in LOADS if told.load == "both" else [told.load]:
        results[name] = found = measure(LOADS[name], told.divide)
        sys.stdout.write(
            f"{name}: {found['requests']:,} requests, {found['choices']:,} choices in"
            f" {found['batches']} batches; written in {found['write_seconds']} s"
            f" (the first half in {found['first_half_seconds']}), memory"
            f" +{found['write_peak_bytes'] / 1e6:,.0f} MB, by formula"
            f" {found['write_formula_bytes'] / 1e6:,.0f}; {found['files_before']} files merged to"
            f" {found['files_after']} in {found['compact_seconds']} s,"
            f" +{found['compact_peak_bytes'] / 1e6:,.0f} MB\n"
        )
    sys.stdout.write(json.dumps(results) + "\n")


if __name__ == "__main__":
    main()
