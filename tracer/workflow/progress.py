"""Progress on stderr, and the engine's own chatter out of the way."""

import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TextIO

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

__all__ = ["CaptureProgress", "counting", "drawing", "engine_log"]

_PLAIN_SECONDS = 10.0


@contextmanager
def engine_log(name: str, *, verbose: bool) -> Iterator[tuple[TextIO, Path | None]]:
    """Send what this process and its children print to a log file, unless verbose.

    Yields:
        A stream to the real stderr, and the log's path (None when verbose). The log is removed
        when the block ends well and kept when it fails.
    """
    if verbose:
        yield sys.stderr, None
        return
    handle, log_name = tempfile.mkstemp(prefix=f"tracer-{name}-", suffix=".log")
    log = Path(log_name)
    sys.stdout.flush()
    sys.stderr.flush()
    saved = [os.dup(1), os.dup(2)]
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    terminal = os.fdopen(os.dup(saved[1]), "w", buffering=1)
    try:
        yield terminal, log
    except BaseException:
        _restore(saved, handle, terminal)
        raise
    _restore(saved, handle, terminal)
    log.unlink(missing_ok=True)


def _restore(saved: list[int], handle: int, terminal: TextIO) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(saved[0], 1)
    os.dup2(saved[1], 2)
    with contextlib.suppress(BrokenPipeError):  # nobody reads it any more
        terminal.close()
    for descriptor in (*saved, handle):
        os.close(descriptor)


class _LastingConsole(Console):
    """A capture outlives whoever reads its progress, as in `tracer capture 2>&1 | head`."""

    def on_broken_pipe(self) -> None:
        """Say no more; rich would end the process."""
        self.quiet = True


@contextmanager
def counting(verb: str) -> Iterator[Callable[[str], None]]:
    """Tell on stderr what is done: on a terminal a line that changes, elsewhere every ten seconds.

    Yields:
        To be called with the name of each thing that is done.
    """
    console = _LastingConsole(stderr=True)
    done, told = 0, time.monotonic()
    with console.status(f"{verb} nothing yet") if console.is_terminal else nullcontext() as line:

        def tell(name: str) -> None:
            nonlocal done, told
            done += 1
            text = f"{verb} {done:,}, last {name}"
            if line is not None:
                line.update(escape(text))
            elif time.monotonic() - told > _PLAIN_SECONDS:
                told = time.monotonic()
                console.print(f"tracer: {text} ...", highlight=False, markup=False, soft_wrap=True)

        yield tell


@contextmanager
def drawing() -> Iterator[Callable[[int, int], None]]:
    """Tell on stderr how many draws are done: a bar on a terminal, elsewhere every ten seconds.

    Yields:
        To be called with (done, total) draws.
    """
    console = _LastingConsole(stderr=True)
    bar = Progress(
        TextColumn("draws"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeRemainingColumn(compact=True),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    task = bar.add_task("", total=None)
    told = time.monotonic()

    def tell(done: int, total: int) -> None:
        nonlocal told
        bar.update(task, completed=done, total=total)
        if not console.is_terminal and time.monotonic() - told > _PLAIN_SECONDS:
            told = time.monotonic()
            console.print(f"tracer: {done:,} of {total:,} draws ...", highlight=False)

    with bar:
        yield tell


class CaptureProgress:
    """A bar on a terminal, a line every ten seconds elsewhere."""

    def __init__(self, stream: TextIO) -> None:
        self._console = _LastingConsole(file=stream)
        self._bar = Progress(
            BarColumn(bar_width=20),  # the whole line fits into 80 columns
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}  {task.fields[size]}"),
            TimeRemainingColumn(compact=True, elapsed_when_finished=True),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task("", total=None, rate="", size="", start=False)
        self._tokens = self._bytes = self._requests = self._total = 0
        self._began = self._told = time.monotonic()

    def note(self, text: str) -> None:
        """Say which stage begins."""
        self._console.print(f"tracer: {text} ...", highlight=False, soft_wrap=True)

    def begin(self, total: int, done: int) -> None:
        """Start the bar; ``done`` requests were committed before."""
        if done:
            self.note(f"resuming, {done} of {total} requests are in the lake")
        self._total, self._requests = total, done
        self._began = self._told = time.monotonic()
        self._bar.update(self._task, total=total, completed=done)
        self._bar.start()
        self._bar.start_task(self._task)

    def advance(self, requests: int, tokens: int) -> None:
        """Requests that finished, and their tokens."""
        self._requests += requests
        self._tokens += tokens
        self._bar.update(self._task, advance=requests, rate=self._rate())
        self._tell()

    def written(self, num_bytes: int) -> None:
        """Bytes that were committed."""
        self._bytes += num_bytes
        self._bar.update(self._task, size=self._size())
        self._tell(always=True)

    def close(self) -> None:
        """Leave the terminal as it was."""
        self._bar.stop()

    def _rate(self) -> str:
        seconds = max(time.monotonic() - self._began, 1e-3)
        return f"{self._tokens / seconds:,.0f} tokens/s"

    def _size(self) -> str:
        return f"{self._bytes / 1e6:,.1f} MB written"

    def _tell(self, *, always: bool = False) -> None:
        late = time.monotonic() - self._told > _PLAIN_SECONDS
        if not self._console.is_terminal and (late or always):
            self._told = time.monotonic()
            self.note(f"{self._requests}/{self._total} requests, {self._rate()}, {self._size()}")
