# ruff: noqa: INP001
"""What a lake of 10^12 choices would meet, at sizes that this machine holds; see docs/scale.md.

usage: big_lake.py [log | commits | rollups] [--files N] [--commits N] [--shards N]

log      a table whose log names N files that are not there: to open it, list it, commit to it
commits  N real batches of one request each, then merged: seconds and bytes of commits and log
rollups  shards of 8 million made-up choices in 94 layers, 128 experts, 57 domains: bytes by table,
         before and after they are merged

One JSON object a line. Needs no engine.
"""

import argparse
import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

from deltalake.transaction import AddAction

from tracer.bench import made_routing
from tracer.bench.made_lake import fill_lake
from tracer.bench.made_routing import MadeModel, make_routing
from tracer.schema import arrow_schema
from tracer.store.compact import compact_run
from tracer.store.delta_tables import named_files
from tracer.store.lake import Lake
from tracer.store.run_writer import SHARD_CHOICES

RUN = "r"
AT_ONCE = 5_000  # files of a commit that stands for many


def main() -> None:
    """Run what is asked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=["log", "commits", "rollups"])
    parser.add_argument("--files", type=int, default=125_000)
    parser.add_argument("--commits", type=int, default=200)
    parser.add_argument("--shards", type=int, default=4)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tracer-big-lake-") as folder:
        match given.what:
            case "log":
                big_log(Path(folder) / "lake", given.files)
            case "commits":
                many_commits(Path(folder) / "lake", given.commits)
            case "rollups":
                rollups(Path(folder) / "lake", given.shards)


def say(**found: Any) -> None:
    """One line of the result."""
    sys.stdout.write(json.dumps(found) + "\n")
    sys.stdout.flush()


def seconds_of(work: Callable[[], Any]) -> float:
    """How long it takes, on the clock."""
    began = time.perf_counter()
    work()
    return round(time.perf_counter() - began, 3)


def log_bytes(lake: Lake, table: str) -> tuple[int, int]:
    """(all of a table's log, its newest checkpoint)."""
    folder = Path(lake.location) / table / "_delta_log"
    points = sorted(folder.glob("*.checkpoint.parquet"))
    newest = points[-1].stat().st_size if points else 0
    return sum(path.stat().st_size for path in folder.iterdir()), newest


def add(lake: Lake, first: int, count: int) -> None:
    """One commit to `routing` that names files that are not there, as one of a batch names them."""
    bounds = {"run_id": RUN, "layer_id": 0, "position": 0, "request_id": "domain-00-000000"}
    lake.delta("routing").create_write_transaction(
        [
            AddAction(
                path=f"{RUN}/{number:06d}-w0.0-abcdef.parquet",
                size=16_000_000,
                partition_values={},
                modification_time=0,
                data_change=True,
                stats=json.dumps(
                    {"numRecords": 1_000_000, "minValues": bounds, "maxValues": bounds}
                ),
            )
            for number in range(first, first + count)
        ],
        mode="append",
        schema=arrow_schema("routing"),
    )


def big_log(folder: Path, files: int) -> None:
    """A table of many files that are not there."""
    lake = Lake.create(folder)
    for first in range(0, files, AT_ONCE):
        add(lake, first, min(AT_ONCE, files - first))
    for number in range(10):  # the last of them writes a checkpoint
        add(lake, files + number, 1)
    ten = [seconds_of(lambda n=n: add(lake, files + 10 + n, 1)) for n in range(10)]
    every, newest = log_bytes(lake, "routing")
    say(
        what="log",
        files=files,
        open_s=seconds_of(lambda: lake.delta("routing")),
        list_s=seconds_of(lambda: named_files(lake.delta("routing"))),
        commit_s=sorted(ten)[5],
        commit_with_checkpoint_s=max(ten),
        checkpoint_mb=round(newest / 1e6, 2),
        log_mb=round(every / 1e6, 2),
        peak_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    )


def many_commits(folder: Path, commits: int) -> None:
    """Many small batches."""
    made = make_routing(MadeModel(16, 64, 8, 50_304, renormalised=False), 300)
    times = [time.perf_counter()]
    lake, _ = fill_lake(folder, made, commits, RUN, lambda _: times.append(time.perf_counter()))
    each = [later - earlier for earlier, later in pairwise(times[1:])]
    tenth = max(1, len(each) // 10)
    every, newest = log_bytes(lake, "routing")
    say(
        what="commits",
        commits=commits,
        first_tenth_s=round(sum(each[:tenth]) / tenth, 3),
        last_tenth_s=round(sum(each[-tenth:]) / tenth, 3),
        log_mb=round(every / 1e6, 2),
        checkpoint_mb=round(newest / 1e6, 3),
    )
    began = time.perf_counter()
    merged = compact_run(lake, RUN, lambda _: None)
    say(
        what="merged",
        files_before=merged.before,
        files_after=merged.after,
        seconds=round(time.perf_counter() - began, 1),
    )


def rollups(folder: Path, shards: int) -> None:
    """Full shards of a large model and many domains."""
    made_routing.NUM_DOMAINS = 57
    model = MadeModel(94, 128, 8, 151_936, renormalised=True)
    made = make_routing(model, SHARD_CHOICES // (94 * 8))
    lake, sizes = fill_lake(folder, made, shards, RUN, lambda _: None)
    choices = made.num_choices * shards
    say(
        what="rollups",
        choices=choices,
        requests=len(made.rows.requests) * shards,
        bytes_a_choice={table: round(size / choices, 3) for table, size in sizes.items()},
        rows_usage_by_domain=lake.num_rows("usage_by_domain", RUN),
    )
    compact_run(lake, RUN, lambda _: None)
    files = lake.files("usage_by_domain", RUN)
    say(
        what="merged",
        files=len(files),
        rows_usage_by_domain=lake.num_rows("usage_by_domain", RUN),
        mb_usage_by_domain=round(sum(Path(file).stat().st_size for file in files) / 1e6, 2),
        most_rows=2 * 57 * 94 * 128,
    )


if __name__ == "__main__":
    main()
