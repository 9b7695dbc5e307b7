"""Writes the lake that later versions must still read: `tests/fixtures/lake-1`.

    python -m tests.store.make_fixture_lake FOLDER

Made once for each schema version and then kept as it is. Two runs: `a` in three batches with
candidates, logits and routers, `b` in one; its rows are those of ``tests.store.conftest``.
"""

import dataclasses
import sys
from pathlib import Path

import numpy as np

from tests.store.conftest import make_rows, request_row, run_row, together
from tracer.store.lake import Lake
from tracer.store.run_writer import writing_run
from tracer.store.shard import ShardWriter
from tracer.store.shard_rows import RouterWeights


def with_extras(rows):
    shape = rows.expert_ids.shape[:2]
    scores = np.array([0.5, 0.25, 0.125], dtype=np.float32)
    return dataclasses.replace(
        rows,
        candidate_ids=np.broadcast_to(np.array([3, 2, 1], dtype=np.int16), (*shape, 3)),
        candidate_scores=np.broadcast_to(scores, (*shape, 3)),
        router_logits=np.broadcast_to(np.arange(4, dtype=np.float32), (*shape, 4)),
    )


def main(folder):
    lake = Lake.create(folder)
    routers = {
        0: RouterWeights(np.eye(4, 3, dtype=np.float32)),
        2: RouterWeights(np.ones((4, 3), np.float32)),
    }
    for run_id, batches in (("a", (["q0", "q1"], ["q2"], ["q3"])), ("b", (["q0"],))):
        writer = ShardWriter(lake.storage, run_id, num_experts=4, precision="f32")
        with writing_run(lake, run_row(run_id)) as target:
            for batch, names in enumerate(batches):
                domain = "law" if batch != 1 else "math"
                rows = together(*(with_extras(make_rows(name, domain=domain)) for name in names))
                files = writer.write(f"{batch:06d}-w0", rows)
                if batch == 0 and run_id == "a":
                    files.append(writer.write_routers("000000-w0-routers", routers))
                target.commit(batch, files, [request_row(name, domain=domain) for name in names])
    for lock in (Path(lake.location) / "_tracer" / "locks").iterdir():
        lock.unlink()
    # delta-rs notes where a table was made; nobody reads that.
    for log in Path(lake.location).glob("*/_delta_log/*.json"):
        log.write_text(log.read_text().replace(f"file://{lake.location}/", "file:///lake/"))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
