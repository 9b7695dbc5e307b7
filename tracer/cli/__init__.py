"""The ``tracer`` command: one file per command, loaded when it is called for.

The one place where errors become lines on stderr and exit codes. On failure stdout stays empty
and stderr ends with ``Error: <fact>`` and at most one ``Hint: <command or setting>``.
"""

import contextlib
import importlib
import os
import sys
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from typing import Any

import click

from tracer import __version__
from tracer.errors import UNEXPECTED, TracerError

__all__ = ["cli", "main", "run"]

# name of the command -> module that holds a click command of that name
_COMMANDS = {
    "audit": "audit",
    "bench": "bench",
    "capture": "capture",
    "compact": "compact",
    "delete": "delete",
    "demo-model": "demo_model",
    "export": "export",
    "import": "import_",
    "job": "job",
    "live": "live",
    "query": "query",
    "report": "report",
    "runs": "runs",
    "sql": "sql",
    "upgrade": "upgrade",
    "verify": "verify",
}
# What goes on where it was interrupted.
_RESUMING = {"capture", "compact", "delete", "import", "job"}


class _ReaderGoneError(Exception):
    """Nobody reads our output any more, as `| head` ends."""


@contextlib.contextmanager
def _reader_watched() -> Iterator[None]:
    """Keeps a broken pipe from click and rich, which make an exit with 1 of it."""
    try:
        yield
    except (BrokenPipeError, SystemExit) as error:
        if isinstance(error, BrokenPipeError) or isinstance(error.__context__, BrokenPipeError):
            raise _ReaderGoneError from error
        raise


class _LazyGroup(click.Group):
    """Lists commands by name and imports only the one that runs, so ``--help`` is instant."""

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        with _reader_watched():
            return super().make_context(*args, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        with _reader_watched():
            return super().invoke(ctx)

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        if cmd_name not in _COMMANDS:
            return None
        module = importlib.import_module(f"tracer.cli.{_COMMANDS[cmd_name]}")
        command: click.Command = module.command
        return command


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="tracer")
def cli() -> None:
    """Record, store and query which experts a Mixture-of-Experts model routes to.

    \b
    A first look, on a CPU and without downloads:
        tracer demo-model ./demo-model
        tracer capture --model ./demo-model --dataset demo --enforce-eager
        tracer audit
        tracer report
    """


def main() -> None:
    """Run the command line; ends the process with the exit codes of ``tracer.errors``."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run one command line in this process; returns the exit code."""
    try:
        result: Any = cli.main(list(arguments), prog_name="tracer", standalone_mode=False)
        click.echo(nl=False)  # flushes, so that a reader who went away shows here
    except (BrokenPipeError, _ReaderGoneError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - told to the user
        message, hint, exit_code = _told(error, arguments)
        click.echo(f"Error: {' '.join(message.split())}", err=True)
        if hint:
            click.echo(f"Hint: {' '.join(hint.split())}", err=True)
        return exit_code
    return result if isinstance(result, int) else 0


def _told(error: BaseException, arguments: Sequence[str]) -> tuple[str, str | None, int]:
    """(fact, hint, exit code) of whatever ended a command."""
    match error:
        case TracerError():
            return str(error), error.hint, error.exit_code
        case click.UsageError():
            command = error.ctx.command_path if error.ctx else "tracer"
            return error.format_message(), f"`{command} --help` lists what it takes.", 2
        case click.ClickException():
            return error.format_message(), None, 2
        case click.Abort() | KeyboardInterrupt():
            resumes = _RESUMING & set(arguments[:1])
            hint = "the same command resumes where it stopped." if resumes else None
            return "interrupted", hint, 130
        case OSError():
            return f"{error.filename or 'system'}: {error.strerror or error}", None, 2
        case _:
            hint = f"the traceback is in {_keep()}"
            return f"unexpected {type(error).__name__}: {error}", hint, UNEXPECTED


def _keep() -> str:
    """Write the current traceback to a file of its own; returns its path."""
    with tempfile.NamedTemporaryFile(
        "w", prefix="tracer-", suffix=".log", delete=False, encoding="utf-8"
    ) as file:
        traceback.print_exc(file=file)
    return file.name
