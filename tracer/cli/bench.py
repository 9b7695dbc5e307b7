"""``tracer bench``: what a capture costs on this machine."""

from typing import Any

import click

from tracer.cli.options import format_option

__all__ = ["command"]


@click.group("bench")
def command() -> None:
    """Measure what a capture costs on this machine."""


@command.command("capture")
@click.option(
    "--model-size",
    type=click.Choice(["mid", "tiny", "both"]),
    default="both",
    show_default=True,
    help="mid: a random OLMoE of 200 million parameters; tiny: the planted demo model.",
)
@click.option(
    "--pairs",
    type=click.IntRange(min=2),
    default=15,
    show_default=True,
    help="Rounds; each runs every mode once, in random order.",
)
@format_option("table", "json")
def capture(model_size: str, pairs: int, output_format: str) -> None:
    """Measure how much longer the engine computes when it is captured.

    One engine on one CPU thread runs the same requests with capture off, with the hooks alone
    (hook), with everything a capture does (full), and where the engine can on a CPU with vLLM's
    own recorder of expert ids (native). Printed are medians over rounds of time against off,
    with 95 % bootstrap intervals. CPU time counts all threads and holds on a busy machine; wall
    time does not. The last line of output is one JSON object.

    \b
    Examples:
        tracer bench capture --model-size tiny
        tracer bench capture --pairs 30 --format json
    """
    from tracer.workflow.bench import bench_capture

    sizes = ["mid", "tiny"] if model_size == "both" else [model_size]
    _print(bench_capture(sizes, pairs), output_format)


def _print(results: Any, output_format: str) -> None:
    from tracer.cli.options import json_text

    if output_format == "table":
        from tracer.cli.tables import print_table

        columns, rows = results.table()
        print_table(columns, rows)
        for line in results.notes():
            click.echo(line)
    click.echo(json_text(results.to_dict()))
