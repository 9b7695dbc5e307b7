"""``tracer import``: routing recorded elsewhere, into the lake."""

from pathlib import Path

import click

from tracer.cli.options import format_option, lake_option, write_json

__all__ = ["command"]

_PATH = click.Path(exists=True, path_type=Path)
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command("import")
@click.option(
    "--form",
    type=click.Choice(["interchange", "jsonl", "vllm", "sglang", "flame"]),
    default="interchange",
    show_default=True,
    help="What --routing is.",
)
@click.option(
    "--routing", type=_PATH, required=True, help="Which experts were chosen: a file, or a folder."
)
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
@click.option(
    "--max-gb",
    type=click.FloatRange(min=0, min_open=True, max=1_000_000),
    default=4,
    show_default=True,
    help="Refuse files that unpack to more; several times as much is needed in memory.",
)
@lake_option
@format_option("table", "json")
def command(
    form: str,
    routing: Path,
    requests: Path,
    run: Path,
    run_id: str | None,
    weight_precision: str,
    max_gb: float,
    lake_path: str,
    output_format: str,
) -> None:
    """Bring routing recorded elsewhere into the lake.

    REQUESTS holds request_id, domain and num_prompt_tokens, and may hold token_ids. Importing the
    same files again changes nothing.

    \b
    Forms of --routing:
        interchange  Parquet of request_id, position, token_id, layer_id, expert_ids, gate_weights
        jsonl        lines of {req_id, token_idx, layer, topk_ids, topk_weights}, plain or .zst
        vllm         .npz of an array [tokens, layers, top_k] per request; has no gate weights, so
                     that the run cannot be audited
        sglang       .pt of its recorder in the mode per_token: prompts only, and no gate weights;
                     REQUESTS needs token_ids
        flame        folder of layer_NN.parquet with indices and scores, a row per token

    \b
    Examples:
        tracer import --routing routing.parquet --requests requests.parquet --run run.json
        tracer import --form jsonl --routing log.jsonl.zst --requests requests.parquet \\
            --run run.json
    """
    from tracer.workflow.import_ import import_form

    summary = import_form(
        lake_path,
        form=form,
        routing=routing,
        requests=requests,
        run=run,
        run_id=run_id,
        weight_precision=weight_precision,
        max_gb=max_gb,
    )
    if output_format == "json":
        write_json(summary)
    else:
        click.echo(
            f"run {summary['run_id']}: {summary['num_requests']:,} requests,"
            f" {summary['num_rows']:,} routing rows"
        )
