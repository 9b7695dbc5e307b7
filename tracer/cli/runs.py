"""``tracer runs``: what the lake holds."""

from pathlib import Path

import click

from tracer.cli.options import format_option, lake_option, write_json

__all__ = ["command"]


@click.command("runs")
@lake_option
@format_option("table", "json")
def command(lake_path: Path, output_format: str) -> None:
    """List the runs of a lake, oldest first.

    \b
    Examples:
        tracer runs
        tracer runs --lake s --format json
    """
    from tracer.store.lake import Lake

    lake = Lake.open(lake_path)
    runs = lake.runs()
    counts = {run["run_id"]: lake.num_rows("requests", run["run_id"]) for run in runs}
    if output_format == "json":
        write_json([{**run, "num_requests": counts[run["run_id"]]} for run in runs])
        return
    from tracer.cli.tables import print_table

    print_table(
        ["run", "status", "model", "dataset", "requests", "experts", "top-k", "layers", "started"],
        [
            [
                run["run_id"],
                run["status"],
                run["model"],
                run["dataset"] or "",
                f"{counts[run['run_id']]:,}",
                str(run["num_experts"]),
                str(run["top_k"]),
                str(len(run["moe_layers"])),
                f"{run['started_at']:%Y-%m-%d %H:%M}",
            ]
            for run in runs
        ],
    )
