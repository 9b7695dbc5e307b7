"""The ``tracer`` command: one file per command, loaded when it is called for.

The one place where errors become lines on stderr and exit codes. On failure stdout stays empty
and stderr ends with ``Error: <fact>`` and at most one ``Hint: <command or setting>``.
"""

import importlib
import os
import sys
import tempfile
import traceback
from typing import Any

import click

from tracer import __version__
from tracer.errors import TracerError

__all__ = ["cli", "main"]

# name of the command -> module that holds a click command of that name
_COMMANDS = {
    "audit": "audit",
    "capture": "capture",
    "demo-model": "demo_model",
    "import": "import_",
    "job": "job",
    "report": "report",
    "runs": "runs",
    "sql": "sql",
}


class _LazyGroup(click.Group):
    """Lists commands by name and imports only the one that runs, so ``--help`` is instant."""

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
    sys.exit(_run(sys.argv[1:]))


def _run(arguments: list[str]) -> int:
    try:
        result: Any = cli.main(arguments, prog_name="tracer", standalone_mode=False)
    except TracerError as error:
        return _fail(str(error), error.hint, error.exit_code)
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else "tracer"
        return _fail(error.format_message(), f"`{command} --help` lists what it takes.", 2)
    except click.ClickException as error:
        return _fail(error.format_message(), None, 2)
    except (click.Abort, KeyboardInterrupt):
        return _fail("interrupted", "the same command resumes where it stopped.", 130)
    except BrokenPipeError:
        # The reader of our output went away, as `| head` does.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        return _fail(f"{error.filename or 'system'}: {error.strerror or error}", None, 2)
    except Exception as error:  # noqa: BLE001 - told to the user, kept in a file
        return _fail(
            f"unexpected {type(error).__name__}: {error}", f"the traceback is in {_keep()}", 70
        )
    return result if isinstance(result, int) else 0


def _keep() -> str:
    """Write the current traceback to a file of its own; returns its path."""
    with tempfile.NamedTemporaryFile(
        "w", prefix="tracer-", suffix=".log", delete=False, encoding="utf-8"
    ) as file:
        traceback.print_exc(file=file)
    return file.name


def _fail(message: str, hint: str | None, exit_code: int) -> int:
    click.echo(f"Error: {' '.join(message.split())}", err=True)
    if hint:
        click.echo(f"Hint: {' '.join(hint.split())}", err=True)
    return exit_code
