"""``tracer import``: routing recorded elsewhere, into the lake."""

from pathlib import Path

import click

from tracer.cli.options import format_option, lake_option, write_json

__all__ = ["command"]

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command("import")
@click.option("--routing", type=_FILE, required=True, help="Parquet: a row per token and layer.")
@click.option("--requests", type=_FILE, required=True, help="Parquet: a row per request.")
@click.option(
    "--run",
    type=_FILE,
    required=True,
    help="JSON: model, num_experts, top_k, moe_layers and what else is known.",
)
@click.option("--run-id", help="Name of the run.  [default: run_id of the JSON, else a digest]")
@click.option(
    "--weight-precision",
    type=click.Choice(["f32", "bf16"]),
    default="f32",
    show_default=True,
    help="Precision gate weights are stored in.",
)
@lake_option
@format_option("table", "json")
def command(
    routing: Path,
    requests: Path,
    run: Path,
    run_id: str | None,
    weight_precision: str,
    lake_path: Path,
    output_format: str,
) -> None:
    """Bring routing recorded elsewhere into the lake.

    ROUTING holds request_id, position, token_id, layer_id, expert_ids and gate_weights;
    REQUESTS holds request_id, domain and num_prompt_tokens. Importing the same files again
    changes nothing.

    \b
    Example:
        tracer import --routing routing.parquet --requests requests.parquet --run run.json
    """
    from tracer.store.interchange import import_run

    summary = import_run(
        lake_path,
        routing=routing,
        requests=requests,
        run=run,
        run_id=run_id,
        weight_precision=weight_precision,
    )
    if output_format == "json":
        write_json(summary)
    else:
        click.echo(
            f"run {summary['run_id']}: {summary['num_requests']:,} requests,"
            f" {summary['num_rows']:,} routing rows"
        )
