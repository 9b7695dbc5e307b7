"""``tracer live``: start, stop and watch the capture of a server that is serving."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from tracer.cli.options import format_option, write_json
from tracer.errors import InputError

if TYPE_CHECKING:
    from tracer.live.status import Counts

__all__ = ["command"]

_Command = TypeVar("_Command", bound=Callable[..., Any])


@click.group("live")
def command() -> None:
    """Record live traffic of `vllm serve`: start, stop, status.

    A server records if its environment says so; docs/serving.md has the settings. These commands
    write and read files in its control folder, on the same machine or a shared disk.

    \b
    Examples:
        TRACER_LIVE=live.yaml vllm serve MODEL
        TRACER_LIVE_LAKE=lake TRACER_LIVE_RATE=0.01 vllm serve MODEL
        tracer live status --config live.yaml
    """


def _server_options(function: _Command) -> _Command:
    """``--config`` or ``--control``: which server is meant."""
    function = click.option(
        "--control",
        type=click.Path(file_okay=False, path_type=Path),
        envvar="TRACER_LIVE_CONTROL",
        show_envvar=True,
        help="The server's control folder.  [default: that of its configuration]",
    )(function)
    return click.option(
        "--config",
        "config_file",
        type=click.Path(dir_okay=False, path_type=Path),
        envvar="TRACER_LIVE",
        show_envvar=True,
        help="The server's configuration; TRACER_LIVE_* count as for the server.",
    )(function)


_timeout_option = click.option(
    "--timeout",
    type=click.FloatRange(0, min_open=True),
    default=10.0,
    show_default=True,
    help="Seconds to wait for the server's answer.",
)


@command.command("start")
@click.option(
    "--rate",
    type=click.FloatRange(0, 1),
    help="Share of requests, in place of `rate` of the configuration.",
)
@_timeout_option
@_server_options
def start(
    rate: float | None, timeout: float, config_file: Path | None, control: Path | None
) -> None:
    """Have new requests recorded, from now on and after a restart of the server.

    \b
    Examples:
        tracer live start --config live.yaml
        tracer live start --config live.yaml --rate 0.1
    """
    from tracer.live.control import command as give

    counts = give(_folder(config_file, control), recording=True, rate=rate, timeout=timeout)
    run = f", run {counts.run_id}" if counts.run_id else ""
    click.echo(f"recording: {_percent(counts.rate)} of requests{run}")


@command.command("stop")
@click.option(
    "--drain",
    type=click.FloatRange(0, min_open=True),
    metavar="SECONDS",
    help="Then wait, at most so long, until every chosen request is in the lake.",
)
@_timeout_option
@_server_options
def stop(
    drain: float | None, timeout: float, config_file: Path | None, control: Path | None
) -> None:
    """Record no new requests, also after a restart; serving goes on.

    Requests that run are recorded to their end.

    \b
    Examples:
        tracer live stop --config live.yaml
        tracer live stop --config live.yaml --drain 120 && tracer audit --lake lake
    """
    from tracer.live.control import command as give
    from tracer.live.control import wait_until_written

    folder = _folder(config_file, control)
    counts = give(folder, recording=False, timeout=timeout)
    if drain is not None:
        counts = wait_until_written(folder, drain)
    click.echo(f"stopped: {counts.recorded:,} requests recorded, {counts.pending:,} still to write")


@command.command("status")
@_server_options
@format_option("table", "json")
def status(config_file: Path | None, control: Path | None, output_format: str) -> int:
    """Show what a server records. Exits with 1 if it tells an error, with 4 if none is there.

    \b
    Examples:
        tracer live status --config live.yaml
        tracer live status --control lake/_tracer/live/live --format json | jq .dropped
    """
    from tracer.live.control import current_status

    counts = current_status(_folder(config_file, control))
    if output_format == "json":
        write_json({**counts.to_dict(), "pending": counts.pending})
    else:
        from tracer.cli.tables import print_table

        print_table(["what", "value"], [[name, value] for name, value in _rows(counts)])
    return 1 if counts.last_error else 0


@command.command("check")
@click.argument("file", type=click.Path(path_type=Path), required=False)
@click.option("--schema", is_flag=True, help="Print the JSON schema of the file.")
def check(file: Path | None, schema: bool) -> None:
    """Check a configuration and print it as a server would read it, TRACER_LIVE_* included.

    Paths and what `hash_labels` protects are left out.

    \b
    Examples:
        tracer live check live.yaml
        tracer live check --schema > live.schema.json
    """
    from tracer.live.config import CONFIG_VARIABLE, LiveConfig, load_config

    if schema:
        write_json(LiveConfig.model_json_schema())
        return
    environ = {**os.environ, **({CONFIG_VARIABLE: str(file)} if file else {})}
    config = load_config(environ)
    if config is None:
        raise InputError("no configuration was named", "tracer live check FILE")
    write_json(config.public())


def _folder(config_file: Path | None, control: Path | None) -> Path:
    """The control folder that is meant."""
    if control is not None:
        return control
    from tracer.live.config import CONFIG_VARIABLE, load_config

    environ = {**os.environ, **({CONFIG_VARIABLE: str(config_file)} if config_file else {})}
    config = load_config(environ, read_key=False)
    if config is None:
        raise InputError(
            "no server was named", "name its configuration with --config (TRACER_LIVE)."
        )
    return config.control_folder


def _rows(counts: "Counts") -> list[tuple[str, str]]:
    share = counts.queue_bytes / counts.queue_limit_bytes if counts.queue_limit_bytes else 0
    rows = [
        ("state", "recording" if counts.recording else "stopped"),
        ("rate", _percent(counts.rate)),
        ("run", counts.run_id or "none yet"),
        ("since", _time(counts.started_at)),
        ("requests seen", f"{counts.seen:,}"),
        ("recorded", f"{counts.recorded:,} with {counts.tokens:,} tokens"),
        ("pending", f"{counts.pending:,}"),
        ("left out", _reasons(counts.left_out)),
        ("dropped", _reasons(counts.dropped)),
        ("values refused", _reasons(counts.refused_values)),
        ("written", f"{counts.bytes_written / 1e6:,.1f} MB"),
        ("queue", f"{counts.queue_bytes / 1e6:,.1f} MB ({share:.0%} of its limit)"),
        ("process", f"{counts.pid} on {counts.host}"),
    ]
    return [*rows, ("error", counts.last_error)] if counts.last_error else rows


def _reasons(reasons: dict[str, int]) -> str:
    named = ", ".join(f"{reason} {number:,}" for reason, number in sorted(reasons.items()))
    return f"{sum(reasons.values()):,} ({named})" if named else "0"


def _percent(rate: float) -> str:
    return f"{100 * rate:g} %"


def _time(seconds: float) -> str:
    import datetime

    return f"{datetime.datetime.fromtimestamp(seconds, datetime.UTC):%Y-%m-%d %H:%M:%S} UTC"
