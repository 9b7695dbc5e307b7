"""One run in a bucket, written by several processes at once, each its share."""

import multiprocessing

import pytest

from tests.store.conftest import run_row
from tests.store.test_shares import NAMES, content, sound, write, write_share
from tracer.errors import LakeBusyError
from tracer.store.lake import Lake
from tracer.store.run_writer import writing_run, writing_share
from tracer.store.shares import Share, split_of


def test_shares_in_a_bucket_are_one_run(place, tmp_path):
    whole = Lake.create(tmp_path / "whole")
    with writing_run(whole, run_row("r")) as target:
        write(target, NAMES)
    lake = Lake.create(place)
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=write_share, args=(place, f"{i}/3")) for i in (0, 1)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert (lake.run("r")["status"], split_of(lake.storage, "r")) == ("running", 3)
    with writing_share(lake, run_row("r"), Share(2, 3), NAMES) as target:
        with pytest.raises(LakeBusyError, match="share 2/3 of run 'r' is being written"):
            write_share(place, "2/3")
        with pytest.raises(LakeBusyError, match="run 'r' is being written"), lake.writing("r"):
            pass
        write(target, [name for name in NAMES if name not in target.done])
    assert split_of(lake.storage, "r") is None
    assert content(lake) == content(whole)
    assert sound(lake)
