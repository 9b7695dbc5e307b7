"""The progress of a capture: a bar on a terminal, plain lines elsewhere, logs out of the way."""

import io
import os
import pty
import subprocess
import sys
from types import SimpleNamespace

import pytest

from tracer.workflow.progress import CaptureProgress, drawing, engine_log


def test_elsewhere_lines_are_printed_as_stages_begin_and_bytes_are_written():
    stream = io.StringIO()
    progress = CaptureProgress(stream)
    progress.note("loading the model")
    progress.begin(total=10, done=4)
    progress.advance(6, 1200)
    progress.written(2_500_000)
    progress.close()
    lines = stream.getvalue().splitlines()
    assert lines[:2] == [
        "tracer: loading the model ...",
        "tracer: resuming, 4 of 10 requests are in the lake ...",
    ]
    assert lines[2].startswith("tracer: 10/10 requests, ")
    assert lines[2].endswith(" tokens/s, 2.5 MB written ...")


def test_on_a_terminal_there_is_a_bar_with_rate_and_bytes():
    """A real terminal of 80 columns: nothing of the line is cut off."""
    script = (
        "import sys; from tracer.workflow.progress import CaptureProgress;"
        "p = CaptureProgress(sys.stderr); p.begin(14000, 0); p.advance(14000, 9000000);"
        "p.written(2_500_000); p.close()"
    )
    terminal, inside = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80"}
    with subprocess.Popen([sys.executable, "-c", script], stderr=inside, env=environment) as child:
        os.close(inside)
        shown = b""
        try:
            while part := os.read(terminal, 4096):
                shown += part
        except OSError:  # how Linux says that the other side is closed
            pass
        assert child.wait() == 0
    os.close(terminal)
    text = shown.decode()
    assert "14000/14000" in text
    assert "tokens/s" in text
    assert "2.5 MB written" in text
    assert "…" not in text


def test_draws_are_counted_in_lines_where_there_is_no_terminal(capfd, monkeypatch):
    """A line every ten seconds: of calls at 0, 5, 11 and 12 the third is told."""
    clock = iter([0.0, 5.0, 11.0, 11.0, 12.0])
    monkeypatch.setattr("tracer.workflow.progress.time", SimpleNamespace(monotonic=clock.__next__))
    with drawing() as tell:
        for done in (1, 2, 3):
            tell(done, 1980)
    assert capfd.readouterr() == ("", "tracer: 2 of 1,980 draws ...\n")


def test_what_the_engine_prints_goes_to_a_log(capfd):
    """Its processes write to the file descriptors, not to Python's streams."""
    with engine_log("test", verbose=False) as (terminal, log):
        os.write(1, b"chatter\n")
        os.write(2, b"warning\n")
        terminal.write("for the user\n")
        assert log.read_bytes() == b"chatter\nwarning\n"
    assert capfd.readouterr() == ("", "for the user\n")
    assert not log.exists()


def test_the_log_of_a_failure_is_kept(capfd):
    kept = []

    def fail():
        with engine_log("test", verbose=False) as (_, log):
            kept.append(log)
            os.write(2, b"the reason\n")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    (log,) = kept
    assert log.read_bytes() == b"the reason\n"
    log.unlink()
    os.write(2, b"visible again\n")
    assert capfd.readouterr().err == "visible again\n"


def test_verbose_leaves_everything_where_it_is(capfd):
    with engine_log("test", verbose=True) as (_, log):
        os.write(2, b"chatter\n")
    assert log is None
    assert capfd.readouterr().err == "chatter\n"


def test_a_capture_outlives_whoever_reads_its_progress():
    """As in `tracer capture 2>&1 | head -1`: the capture goes on and ends as it would."""
    script = (
        "from tracer.workflow.progress import CaptureProgress, drawing, engine_log\n"
        "import time\n"
        "with engine_log('test', verbose=False) as (stream, log):\n"
        "    p = CaptureProgress(stream)\n"
        "    for n in range(50):\n"
        "        p.note('stage')\n"
        "        time.sleep(0.01)\n"
        "    p.close()\n"
        "print('finished')\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        assert child.stderr.readline() == "tracer: stage ...\n"
        child.stderr.close()
        assert child.stdout.read() == "finished\n"
        assert child.wait() == 0
