"""Writes or resumes a run of so many batches: python write_run.py URL RUN BATCHES LEASE [PUTS].

Ends itself with SIGKILL when the server is asked to put an object the PUTS-th time; minus so many:
once that object is there. Prints "writing" once it has the run, and pauses 50 ms a batch.
"""

import os
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import obstore

from tests.store.conftest import make_rows, request_row, run_row
from tracer.errors import TracerError
from tracer.store import s3_lease
from tracer.store.lake import Lake
from tracer.store.run_writer import writing_run
from tracer.store.shard import ShardWriter


def kill_at(puts):
    put, left = obstore.put, abs(puts)

    def counted(store, name, *words, **options):
        nonlocal left
        if "/locks/" in name:
            return put(store, name, *words, **options)
        left -= 1
        if left == 0 and puts > 0:
            os.kill(os.getpid(), signal.SIGKILL)
        done = put(store, name, *words, **options)
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return done

    obstore.put = counted


def main(url, run_id, batches, lease, puts="0"):
    s3_lease.LEASE_SECONDS = float(lease)
    if int(puts):
        kill_at(int(puts))
    lake = Lake.create(url)
    with writing_run(lake, run_row(run_id)) as target:
        print("writing", flush=True)
        todo = [f"q{n}" for n in range(int(batches)) if f"q{n}" not in target.done]
        for batch, request in enumerate(todo, target.next_batch):
            writer = ShardWriter(lake.storage, run_id, num_experts=4, precision="f32")
            files = writer.write(f"{batch:06d}-w0", make_rows(request))
            target.commit(batch, files, [request_row(request)])
            time.sleep(0.05)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except TracerError as error:
        sys.exit(f"{type(error).__name__}: {error}")
