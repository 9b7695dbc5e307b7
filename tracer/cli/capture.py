"""``tracer capture``: a dataset through a model, every token's routing into the lake."""

from pathlib import Path
from typing import Any

import click

from tracer.cli.options import format_option, lake_option, write_json

__all__ = ["command"]


@click.command("capture", context_settings={"ignore_unknown_options": True})
@click.option("--model", required=True, help="Folder of a checkpoint, or a hub name.")
@click.option(
    "--dataset",
    required=True,
    help="demo, mmlu, a .jsonl[.zst], .csv or .parquet file, or a text dataset on the hub.",
)
@lake_option
@click.option(
    "--run-id",
    help="Name of the run. Default: made from the settings, so that the"
    " same command resumes its own run.",
)
@click.option("--limit", type=int, help="Take N rows, round-robin over subjects (else domains).")
@click.option(
    "--max-tokens",
    type=click.IntRange(min=1),
    default=16,
    show_default=True,
    help="Most tokens to generate per request.",
)
@click.option(
    "--weight-precision",
    type=click.Choice(["bf16", "f32"]),
    default="bf16",
    show_default=True,
    help="Precision gate weights are stored in.",
)
@click.option(
    "--top-m",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    metavar="M",
    help="Also record the M best-scored experts of every token, M above the model's top-k;"
    " 0 records the chosen ones alone.",
)
@click.option(
    "--router-logits", is_flag=True, help="Also record every expert's router logit; large."
)
@click.option("--router-weights", is_flag=True, help="Also store each layer's router matrix.")
@click.option(
    "--too-long",
    type=click.Choice(["error", "skip", "truncate"]),
    default="error",
    show_default=True,
    help="What to do with prompts the model has no room for.",
)
@click.option(
    "--chat-template/--no-chat-template",
    default=None,
    help="Wrap prompts in the model's chat template. Default: only for mmlu, where the"
    " model has one.",
)
@click.option(
    "--temperature",
    type=click.FloatRange(min=0),
    default=0.0,
    show_default=True,
    help="Sampling temperature; 0 is greedy.",
)
@click.option(
    "--samples",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Requests per row, each with a seed of its own; needs a --temperature above 0.",
)
@click.option(
    "--stop", multiple=True, metavar="TEXT", help="Text that ends an output; may be repeated."
)
@click.option("--ignore-eos", is_flag=True, help="Generate --max-tokens tokens always.")
@click.option("--store-text", is_flag=True, help="Store prompts and outputs as text.")
@click.option("--prompt-field", help="Column that holds the prompt.  [default: prompt]")
@click.option("--domain-field", help="Column that holds the domain.  [default: domain]")
@click.option("--id-field", help="Column that holds the row id.  [default: id, else row number]")
@click.option(
    "--capture-field",
    help="Column of true and false: rows with false run, unrecorded.  [default: capture]",
)
@click.option(
    "--data-dir", type=click.Path(path_type=Path), help="mmlu: folder with the original CSV files."
)
@click.option(
    "--domain-map",
    type=click.Path(path_type=Path),
    help="mmlu: TOML file that maps subjects to domains.",
)
@click.option(
    "--lora", type=click.Path(path_type=Path), help="Folder of a LoRA adapter to run with."
)
@click.option("--split", help="Hub datasets: the split.")
@click.option("--allow-untested-engine", is_flag=True, help="Use a vLLM version not tested.")
@click.option(
    "--allow-unproved-layout",
    is_flag=True,
    help="Use parallel layouts whose rows were not proved right, such as expert parallelism.",
)
@click.option(
    "--shard",
    metavar="I/N",
    help="Capture share I of N of the requests, counted from 0, while other processes capture the"
    " others into the same lake; in a Slurm array:"
    " $SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT of --array=0-...",
)
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    metavar="N",
    help="Capture in N shares, each a task of Ray with an engine of its own; RAY_ADDRESS names a"
    " cluster, else this machine is one.",
)
@click.option(
    "--gpus-per-worker",
    type=click.FloatRange(min=0),
    metavar="G",
    help="GPUs that each of the --workers asks Ray for.  [default: 1 where Ray has any, else 0]",
)
@click.option("--verbose", is_flag=True, help="Show the engine's log.")
@format_option("table", "json")
@click.argument("engine_options", nargs=-1, type=click.UNPROCESSED, metavar="[VLLM OPTIONS]...")
def command(**arguments: Any) -> None:
    """Run DATASET through MODEL and record the routing of every token.

    Every prompt and generated token gets one row per MoE layer: the chosen experts and their
    gate weights. Options not listed here go to vLLM as they are, such as --dtype float32,
    --max-model-len 4096, --enforce-eager or --tensor-parallel-size 2. An interrupted capture
    goes on when the same command is given again.

    Tokens that the engine answers from its prefix cache have no rows; the cache is used only
    with --enable-prefix-caching.

    \b
    Examples:
        tracer capture --model ./demo-model --dataset demo
        tracer capture --model allenai/OLMoE-1B-7B-0924 --dataset mmlu --limit 500
        tracer capture --model M --dataset prompts.jsonl --domain-field topic --max-tokens 64
        tracer capture --model M --dataset prompts.jsonl --samples 4 --temperature 0.8 --stop END
        tracer capture --model M --dataset mmlu --lake s3://bucket/lake --shard 0/8
        tracer capture --model M --dataset mmlu --workers 8 --gpus-per-worker 1
    """
    output_format = arguments.pop("output_format")
    summary = _capture(**arguments)
    if summary.get("num_domains") == 0 and not summary["unmapped"]:
        click.echo("no domains: name a column with --domain-field", err=True)
    if output_format == "json":
        write_json(summary)
        return
    click.echo(
        f"run {summary['run_id']}: {summary['num_requests']:,} requests,"
        f" {summary['num_prompt_tokens']:,} prompt and"
        f" {summary['num_generated_tokens']:,} generated tokens,"
        f" {summary['num_rows']:,} routing rows"
    )
    for count, what in (
        ("num_skipped", "prompts were too long and skipped"),
        ("num_uncaptured", "requests ran unrecorded, as the dataset asks"),
        ("num_aborted", "requests were aborted and have no rows"),
    ):
        if summary[count]:
            click.echo(f"{summary[count]:,} {what}")
    if summary["unmapped"]:
        listed = ", ".join(f"{name} ({n})" for name, n in summary["unmapped"].items())
        click.echo(f"subjects without a domain, kept as 'none': {listed}")
    if summary["share"]:
        status = summary["run_status"]
        rest = "" if status == "complete" else ": other shares are not in the lake yet"
        click.echo(f"share {summary['share']} is in the lake; the run is {status}{rest}")
    click.echo(
        f"{summary['bytes_written'] / 1e6:,.1f} MB in {summary['seconds']:,.1f} s,"
        f" {summary['tokens_per_s']:,.0f} tokens/s; lake {summary['lake']}"
    )


def _capture(
    *,
    model: str,
    dataset: str,
    lake_path: str,
    verbose: bool,
    shard: str | None,
    workers: int | None,
    gpus_per_worker: float | None,
    **options: Any,
) -> dict[str, Any]:
    from tracer.capture.manifest import CaptureRequest
    from tracer.datasets.options import DatasetOptions
    from tracer.store.shares import Share
    from tracer.workflow.capture import capture_dataset
    from tracer.workflow.workers import capture_with_workers

    if shard is not None and workers is not None:
        raise click.UsageError("--shard is one share, --workers runs all of them: give one.")
    if gpus_per_worker is not None and workers is None:
        raise click.UsageError("--gpus-per-worker belongs to --workers.")
    if verbose and workers is not None:
        raise click.UsageError("--verbose does not go with --workers; use --shard to see one.")
    share = Share.parse(shard) if shard is not None else None

    fields = DatasetOptions.__dataclass_fields__
    dataset_options = DatasetOptions(**{name: options.pop(name) for name in fields})
    request = CaptureRequest(model=model, **options)
    if workers is not None:
        return capture_with_workers(
            request, dataset, dataset_options, lake_path, workers, gpus=gpus_per_worker
        )
    return capture_dataset(
        request, dataset, dataset_options, lake_path, share=share, verbose=verbose
    )
