"""``tracer bench``: what capturing, writing and asking cost on this machine."""

from pathlib import Path
from typing import Any

import click

from tracer.cli.options import format_option

__all__ = ["command"]


@click.group("bench")
def command() -> None:
    """Measure what capturing, writing and asking cost on this machine."""


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
    default=80,
    show_default=True,
    help="Turns of every mode at every load, in random order; fewer than 15 are no result.",
)
@format_option("table", "json")
def capture(model_size: str, pairs: int, output_format: str) -> None:
    """Measure how much longer the engine computes when it is captured.

    One engine on one CPU thread runs the same requests with capture off, with the hooks alone
    (hook), with everything a capture does (full), and where the engine can on a CPU with vLLM's
    own recorder of expert ids (native). Modes take turns of a fraction of a second; full writes its
    batches when a capture would. Printed are medians over pairs of time against off, with 95 %
    sign-test intervals. CPU time counts all threads and holds on a busy machine; wall time does
    not. The last line of output is one JSON object.

    \b
    Examples:
        tracer bench capture --model-size tiny
        tracer bench capture --pairs 200 --format json
    """
    from tracer.capture.engine_setup import find_engine

    find_engine()  # says what to install; the next line would not
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


@command.command("memory")
@click.option(
    "--tokens",
    type=click.IntRange(min=1),
    default=2_000_000,
    show_default=True,
    help="Tokens to record, at least.",
)
@click.option(
    "--layers", type=click.IntRange(min=1), default=16, show_default=True, help="MoE layers."
)
@click.option(
    "--experts", type=click.IntRange(min=1), default=64, show_default=True, help="Experts a layer."
)
@click.option(
    "--top-k", type=click.IntRange(min=1), default=8, show_default=True, help="Choices a token."
)
@format_option("table", "json")
def memory(tokens: int, layers: int, experts: int, top_k: int, output_format: str) -> None:
    """Measure the memory that recording holds over a long run.

    Made-up rows of a model of that shape go through everything behind the forward pass, as fast
    as they can be written, into a temporary lake. Printed is the most resident memory beside
    what it may be by the parts' own formulas. The last line of output is one JSON object.

    \b
    Examples:
        tracer bench memory
        tracer bench memory --layers 58 --experts 256 --tokens 500000
    """
    from tracer.capture.engine_setup import find_engine

    if top_k > experts:
        raise click.BadParameter(f"{top_k} choices of {experts} experts", param_hint="--top-k")
    find_engine()
    from tracer.cli.options import json_text
    from tracer.workflow.bench_memory import bench_memory

    held = bench_memory(tokens, layers, experts, top_k)
    if output_format == "table":
        for line in held.lines():
            click.echo(line)
    click.echo(json_text(held.to_dict()))


@command.command("write")
@click.option(
    "--model",
    type=click.Choice(["olmoe", "qwen3"]),
    default="olmoe",
    show_default=True,
    help="Shape: OLMoE-1B-7B (16 layers, 8 of 64) or Qwen3-30B-A3B (48 layers, 8 of 128).",
)
@click.option(
    "--tokens",
    type=click.IntRange(min=1),
    help="Tokens in a shard.  [default: as many as a capture gathers, 8 million choices]",
)
@click.option(
    "--rounds",
    type=click.IntRange(min=1),
    default=15,
    show_default=True,
    help="Turns of every writer, in random order; fewer than 15 are no result.",
)
@format_option("table", "json")
def write(model: str, tokens: int | None, rounds: int, output_format: str) -> None:
    """Measure how fast shards are written and how small they are.

    Made-up choices of a model of that shape, recorded as a capture has them, are written into a
    temporary lake; the same rows by pyarrow; and the same bytes compressed and copied. Needs no
    engine. Speeds are by CPU time. The last line of output is one JSON object.

    \b
    Examples:
        tracer bench write
        tracer bench write --model qwen3 --rounds 30
    """
    from tracer.workflow.bench_write import bench_write

    _print(bench_write(model, tokens, rounds), output_format)


@command.command("query")
@click.option(
    "--choices",
    type=click.IntRange(min=1),
    default=20_000_000,
    show_default=True,
    help="Choices in the run; 1,000,000,000 take about 2 GB.",
)
@click.option(
    "--rounds",
    type=click.IntRange(min=1),
    default=15,
    show_default=True,
    help="Turns of every question, in random order; fewer than 15 are no result.",
)
@click.option(
    "--keep",
    type=click.Path(path_type=Path),
    help="New folder for the lake, which then stays; by default it is temporary.",
)
@format_option("table", "json")
def query(choices: int, rounds: int, keep: Path | None, output_format: str) -> None:
    """Measure what a question costs, from rollups and from rows.

    A run of made-up choices of OLMoE-1B-7B's shape is written, its batches repeating one another
    under other request ids. The mean gate weight of every expert, domain and layer is then asked
    of usage_by_domain and of routing, and summed by numpy and pandas over arrays in memory; its
    intervals come from usage by an audit's draws of requests. How often two experts are chosen for
    one token is counted from routing, and by numpy and pandas in memory, which takes pandas some
    2 GB. The most alike request of each is found from usage, and by numpy in a matrix of all pairs:
    4 GB for a billion choices. Needs no engine. The last line of output is one JSON object.

    \b
    Examples:
        tracer bench query
        tracer bench query --choices 1000000000 --rounds 1 --keep big-lake
    """
    from tracer.workflow.bench_query import bench_query

    _print(bench_query(choices, rounds, keep), output_format)


@command.command("serve")
@click.option(
    "--model-size",
    type=click.Choice(["mid", "tiny"]),
    default="mid",
    show_default=True,
    help="mid: a random OLMoE of 200 million parameters; tiny: the planted demo model.",
)
@click.option(
    "--pairs",
    type=click.IntRange(min=2),
    default=30,
    show_default=True,
    help="Turns of every mode, in random order; fewer than 15 are no result.",
)
@click.option(
    "--clients",
    type=click.IntRange(min=1),
    default=4,
    show_default=True,
    help="Clients at a time.",
)
@click.option(
    "--requests",
    type=click.IntRange(min=1),
    default=2,
    show_default=True,
    help="Requests of each client in a turn.",
)
@click.option(
    "--prompt-tokens",
    type=click.IntRange(min=1),
    default=64,
    show_default=True,
    help="Length of a prompt.",
)
@click.option(
    "--output-tokens",
    type=click.IntRange(min=3),
    default=48,
    show_default=True,
    help="Length of an output.",
)
@format_option("table", "json")
def serve(
    model_size: str,
    pairs: int,
    clients: int,
    requests: int,
    prompt_tokens: int,
    output_tokens: int,
    output_format: str,
) -> None:
    """Measure what live capture costs the clients of `vllm serve`.

    Two servers of one model, one of them recording, answer streaming clients in turns: without
    capture (off), with recording stopped (stopped), and with everything recorded and in the lake
    (on). Printed are medians over pairs of turns against off, with 95 % sign-test intervals. CPU
    time counts the whole server and holds on a busy machine; latencies do not. The last line of
    output is one JSON object.

    \b
    Examples:
        tracer bench serve
        tracer bench serve --model-size tiny --clients 16 --pairs 60
    """
    from tracer.capture.engine_setup import find_engine

    find_engine()
    from tracer.bench.serve_load import Load
    from tracer.workflow.bench_serve import bench_serve

    load = Load(clients, requests, prompt_tokens, output_tokens)
    _print(bench_serve(model_size, pairs, load), output_format)
