"""Options that several commands share."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

__all__ = ["format_option", "lake_option", "run_option", "write_json"]

_Command = TypeVar("_Command", bound=Callable[..., Any])


def lake_option(command: _Command) -> _Command:
    """``--lake``: the folder all commands work on."""
    return click.option(
        "--lake",
        "lake_path",
        type=click.Path(path_type=Path),
        envvar="TRACER_LAKE",
        default=Path("./lake"),
        show_default=True,
        show_envvar=True,
        help="The trace lake.",
    )(command)


def run_option(command: _Command) -> _Command:
    """``--run``: which run of the lake."""
    return click.option(
        "--run", "run_id", help="Run to read; not needed where the lake holds one."
    )(command)


def format_option(*formats: str) -> Callable[[_Command], _Command]:
    """``--format``: the first of ``formats`` is the default."""
    return click.option(
        "--format",
        "output_format",
        type=click.Choice(formats),
        default=formats[0],
        show_default=True,
        help="How to print.",
    )


def write_json(value: Any) -> None:
    """Print a value as JSON on stdout; timestamps as ISO 8601."""
    click.echo(json.dumps(value, indent=2, default=str))
