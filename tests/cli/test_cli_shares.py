"""Wrong ways to ask for a capture in shares; all are told before an engine is touched."""

import errno
import os
import sys
from types import SimpleNamespace

import pytest

from tracer.cli import run
from tracer.store.shares import Share
from tracer.workflow import workers

CAPTURE = ["capture", "--model", "nothing", "--dataset", "demo"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--shard", "0/0"], "'0/0' names no share: a run has 1 to 100,000 of them"),
        (["--shard", "3/2"], "there is no share 3/2: shares count from 0, the last one is 1/2"),
        (["--shard", "a/b"], "'a/b' names no share"),
        (["--shard", "/"], "'/' names no share"),
        (["--shard", "0/2", "--workers", "2"], "--shard is one share, --workers runs all of them"),
        (["--workers", "0"], "Invalid value for '--workers'"),
        (["--gpus-per-worker", "1"], "--gpus-per-worker belongs to --workers"),
        (["--workers", "2", "--verbose"], "--verbose does not go with --workers"),
    ],
)
def test_wrong_input_is_told_at_once(options, message, tmp_path, capsys):
    lake = tmp_path / "lake"
    assert run([*CAPTURE, "--lake", str(lake), *options]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert not lake.exists()


def test_a_full_disk_of_a_worker_is_told_as_one(tmp_path, monkeypatch):
    """Not as a process that died, which a scheduler would try again."""

    class Method:
        def remote(self, *_):
            """Nobody reads the board."""

    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "lake/routing")

    board = SimpleNamespace(start=Method(), add=Method())
    monkeypatch.setattr(workers, "capture_dataset", full)
    monkeypatch.setenv("VLLM_WORKER_MULTIPROC_METHOD", "spawn")
    monkeypatch.chdir(tmp_path)
    work = workers._Work(None, "demo", None, str(tmp_path), str(tmp_path))
    error = workers._capture_share(work, Share(0, 2), board)["error"]
    assert (error["message"], error["exit_code"]) == (
        "lake/routing: No space left on device",
        2,
    )


def test_without_ray_the_extra_is_named(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)  # as if it were not installed
    assert run([*CAPTURE, "--lake", str(tmp_path / "lake"), "--workers", "2"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "Error: the library 'ray' is not installed",
        "Hint: uv pip install 'moe-tracer[ray]'",
    ]
    assert not (tmp_path / "lake").exists()
