"""``tracer export``: a run in a form that other programs read."""

from pathlib import Path

import click

from tracer.cli.options import format_option, lake_option, run_option, write_json

__all__ = ["command"]


@click.command("export")
@run_option
@click.option(
    "--form",
    type=click.Choice(["interchange", "topk", "vllm"]),
    default="interchange",
    show_default=True,
    help="What to write.",
)
@click.option(
    "--output", type=click.Path(path_type=Path), required=True, help="Folder or file to make."
)
@click.option("--force", is_flag=True, help="Replace an earlier export.")
@lake_option
@format_option("table", "json")
def command(
    run_id: str | None, form: str, output: Path, force: bool, lake_path: str, output_format: str
) -> None:
    """Write a run for another program, whole or not at all.

    interchange: a folder of routing.parquet, requests.parquet and run.json, which `tracer import`
    reads. vllm: routed_experts.npz in place of the first, with an array of expert ids
    [tokens, layers, top_k] per request, as vLLM returns them. topk: a CSV file as the
    COMMITTEEAUDIT code makes it, of the experts that lead in each domain and layer. Only complete
    requests are written.

    \b
    Examples:
        tracer export --run demo --output demo-run
        tracer export --run demo --form vllm --output demo-ids
        tracer export --run demo --form topk --output topk.csv
    """
    from tracer.store.lake import Lake
    from tracer.workflow.export import export_run
    from tracer.workflow.progress import counting

    with counting("exported files:") as done:
        summary = export_run(
            Lake.open(lake_path), run_id, form=form, output=output, force=force, done=done
        )
    if output_format == "json":
        write_json(summary)
        return
    left_out = summary["num_requests_left_out"]
    click.echo(
        f"run {summary['run_id']} ({summary['run_status']}): {summary['num_requests']:,} requests,"
        f" {summary['num_rows']:,} rows in {output}"
        + (f"; {left_out:,} requests left out" if left_out else "")
    )
