"""Options that several commands share."""

import datetime
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

__all__ = [
    "domains_option",
    "format_option",
    "json_text",
    "keep_option",
    "lake_option",
    "min_presence_option",
    "run_option",
    "write_json",
]

_Command = TypeVar("_Command", bound=Callable[..., Any])


def lake_option(command: _Command) -> _Command:
    """``--lake``: the lake all commands work on, a folder or a URL."""
    return click.option(
        "--lake",
        "lake_path",
        type=click.Path(),
        envvar="TRACER_LAKE",
        default="./lake",
        show_default=True,
        show_envvar=True,
        help="The trace lake: a folder, or s3://bucket/folder.",
    )(command)


def run_option(command: _Command) -> _Command:
    """``--run``: which run of the lake."""
    return click.option(
        "--run", "run_id", help="Run to read; not needed where the lake holds one."
    )(command)


def keep_option(command: _Command) -> _Command:
    """``--keep-hours``: how long files stay on disk that no table names any more."""
    return click.option(
        "--keep-hours",
        type=click.FloatRange(0),
        default=168.0,
        show_default=True,
        help="How long files stay on disk after they left the tables; a week, as Delta has it.",
    )(command)


def min_presence_option(command: _Command) -> _Command:
    """``--min-presence``: the threshold of candidates for a committee."""
    return click.option(
        "--min-presence",
        type=click.FloatRange(0, 1, min_open=True),
        default=0.8,
        show_default=True,
        help="Least share of domains an expert must be listed in.",
    )(command)


def domains_option(command: _Command) -> _Command:
    """``--domains``: other domains than those of the capture."""
    return click.option(
        "--domains",
        "domains_file",
        type=click.Path(path_type=Path),
        help="TOML file that groups domains or subjects under new domain names.",
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
    """Print a value on stdout as ``json_text``."""
    click.echo(json_text(value, indent=2))


def json_text(value: Any, indent: int | None = None) -> str:
    """Strict JSON: times as ISO 8601, what is infinite or undefined as null, the rest as text."""
    return json.dumps(_finite(value), indent=indent, default=_text, allow_nan=False)


def _finite(value: Any) -> Any:
    match value:
        case float() if not math.isfinite(value):
            return None
        case dict():
            return {key: _finite(part) for key, part in value.items()}
        case list() | tuple():
            return [_finite(part) for part in value]
        case _:
            return value


def _text(value: Any) -> str:
    is_time = isinstance(value, datetime.date | datetime.time)
    return value.isoformat() if is_time else str(value)
