"""Status and commands as files: whole, bounded, and obeyed only if nobody else could write them."""

import json
import os
import stat
import subprocess
import sys
import threading
import time

import pytest

from tracer.errors import InputError
from tracer.live.status import (
    Control,
    ControlReader,
    Counts,
    read_status,
    write_control,
    write_status,
)


def counts(**values):
    found = Counts(**values)
    found.leave_out("rate")
    found.drop("queue_full", 3)
    found.refuse_value("value")
    return found


def test_a_status_comes_back_as_it_was_written(tmp_path):
    folder = tmp_path / "deep" / "control"
    mine = counts(seen=9, run_id="live-1", last_error="x", config={"rate": 1})
    write_status(folder, mine)
    assert read_status(folder) == mine
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert [path.name for path in folder.iterdir()] == ["status.json"]


def test_no_status_is_none(tmp_path):
    assert read_status(tmp_path / "nowhere") is None


def test_a_status_is_current_while_its_worker_lives_and_writes():
    now = time.time()
    assert Counts(updated_at=now).is_current
    assert not Counts(updated_at=now - 11).is_current
    assert not Counts(updated_at=now + 3600).is_current
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert not Counts(updated_at=now, pid=ended.pid).is_current
    assert Counts(updated_at=now, pid=ended.pid, host="another").is_current
    assert Counts(updated_at=now, pid=ended.pid, pid_space="pid:[1]").is_current
    assert Counts(updated_at=now, pid=10**30).is_current


def test_what_is_neither_recorded_nor_dropped_is_pending():
    assert Counts(chosen=9, recorded=4, dropped={"a": 2, "b": 1}).pending == 2


def test_a_status_may_be_written_while_reasons_are_counted():
    counts, ends = Counts(), threading.Event()

    def count():
        while not ends.is_set():
            counts.dropped.clear()
            for number in range(50):
                counts.drop(f"reason {number}")

    counting = threading.Thread(target=count)
    counting.start()
    try:
        for _ in range(3000):
            json.dumps(counts.to_dict())
    finally:
        ends.set()
        counting.join()


def test_what_another_version_says_is_left_out(tmp_path):
    (tmp_path / "status.json").write_text(json.dumps({"seen": 3, "new": [1]}))
    assert read_status(tmp_path).seen == 3


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"seen": "3"}',
        '{"seen": true}',
        '{"recording": 1}',
        '{"dropped": {"a": "b"}}',
        '{"dropped": [1]}',
        '{"run_id": 7}',
        "[" * 100_000,
        '{"x": "' + "y" * 300_000 + '"}',
    ],
    ids=lambda text: text[:12],
)
def test_a_status_that_is_none_is_one_error(tmp_path, text):
    (tmp_path / "status.json").write_text(text)
    with pytest.raises(InputError, match="no status of a server"):
        read_status(tmp_path)


def test_a_command_is_seen_once(tmp_path):
    reader = ControlReader(tmp_path)
    assert reader.poll() is None
    write_control(tmp_path, Control("a", recording=False, rate=0.5))
    assert reader.poll() == Control("a", recording=False, rate=0.5)
    assert reader.poll() is None
    write_control(tmp_path, Control("b", recording=True))
    assert reader.poll() == Control("b", recording=True, rate=None)
    assert ControlReader(tmp_path).poll() == Control("b", recording=True, rate=None)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[" * 100_000,
        "{}",
        '{"control_id": "a", "recording": "yes"}',
        '{"control_id": "a", "recording": true, "rate": 2}',
        '{"control_id": "a", "recording": true, "rate": NaN}',
        '{"control_id": "a", "recording": true, "rate": true}',
        '{"control_id": 1, "recording": true}',
        json.dumps({"control_id": "a" * 65, "recording": True}),
        "x" * 300_000,
    ],
    ids=lambda text: text[:12],
)
def test_a_command_that_is_none_is_told_once_and_not_obeyed(tmp_path, text):
    (tmp_path / "control.json").write_text(text)
    reader = ControlReader(tmp_path)
    with pytest.raises(InputError, match="no command"):
        reader.poll()
    assert reader.poll() is None


def test_a_command_that_others_may_write_is_not_obeyed(tmp_path):
    write_control(tmp_path, Control("a", recording=False))
    path = tmp_path / "control.json"
    for mode in (0o666, 0o620):
        path.chmod(mode)
        with pytest.raises(InputError, match="others may write"):
            ControlReader(tmp_path).poll()
    path.chmod(0o600)
    assert ControlReader(tmp_path).poll() is not None


def test_a_link_is_not_obeyed(tmp_path):
    write_control(tmp_path / "elsewhere", Control("a", recording=False))
    (tmp_path / "control.json").symlink_to(tmp_path / "elsewhere" / "control.json")
    with pytest.raises(InputError, match="not obeyed"):
        ControlReader(tmp_path).poll()


def test_a_command_of_another_user_is_not_obeyed(tmp_path, monkeypatch):
    write_control(tmp_path, Control("a", recording=False))
    if os.geteuid() == 0:
        os.chown(tmp_path / "control.json", 12345, 0)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(InputError, match="wrote it, the server is"):
        ControlReader(tmp_path).poll()


def test_a_command_is_its_owners_whatever_the_umask(tmp_path):
    before = os.umask(0)
    try:
        write_control(tmp_path, Control("a", recording=False))
    finally:
        os.umask(before)
    assert ControlReader(tmp_path).poll() is not None


def test_a_pipe_is_no_status_and_nobody_waits_for_it(tmp_path):
    os.mkfifo(tmp_path / "status.json")
    with pytest.raises(InputError, match="not a file"):
        read_status(tmp_path)


def test_a_command_that_is_replaced_behind_the_check_is_not_obeyed(tmp_path, monkeypatch):
    write_control(tmp_path, Control("a", recording=False))
    about = (tmp_path / "control.json").lstat()
    monkeypatch.setattr(type(tmp_path), "lstat", lambda _: about)
    (tmp_path / "control.json").rename(tmp_path / "kept")
    write_control(tmp_path, Control("b", recording=True))
    with pytest.raises(InputError, match="replaced meanwhile"):
        ControlReader(tmp_path).poll()
    (tmp_path / "control.json").unlink()
    (tmp_path / "control.json").symlink_to(tmp_path / "kept")
    with pytest.raises(InputError, match="no command"):
        ControlReader(tmp_path).poll()
