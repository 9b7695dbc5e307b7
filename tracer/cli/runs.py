"""``tracer runs``: what the lake holds."""

from typing import TYPE_CHECKING

import click

from tracer.cli.options import format_option, lake_option, write_json

if TYPE_CHECKING:
    from tracer.store.lake import Lake

__all__ = ["command"]


@click.command("runs")
@lake_option
@format_option("table", "json")
def command(lake_path: str, output_format: str) -> None:
    """List the runs of a lake, oldest first.

    Requests are the complete ones; those that are skipped (never run), uncaptured (run, not
    recorded by wish) or aborted (given up by the engine) stand behind them in brackets.

    \b
    Examples:
        tracer runs
        tracer runs --lake s --format json
    """
    from tracer.store.lake import Lake

    lake = Lake.open(lake_path)
    runs = lake.runs()
    counts = {run["run_id"]: _by_status(lake, run["run_id"]) for run in runs}
    if output_format == "json":
        write_json(
            [
                {
                    **run,
                    "num_requests": sum(counts[run["run_id"]].values()),
                    "requests_by_status": counts[run["run_id"]],
                }
                for run in runs
            ]
        )
        return
    from tracer.cli.tables import print_table
    from tracer.report.words import not_counted

    print_table(
        ["run", "status", "model", "dataset", "requests", "experts", "top-k", "layers", "started"],
        [
            [
                run["run_id"],
                run["status"],
                run["model"],
                run["dataset"] or "",
                f"{counts[run['run_id']].get('complete', 0):,}"
                + (f" ({others})" if (others := not_counted(counts[run["run_id"]])) else ""),
                str(run["num_experts"]),
                str(run["top_k"]),
                str(len(run["moe_layers"])),
                f"{run['started_at']:%Y-%m-%d %H:%M}",
            ]
            for run in runs
        ],
    )


def _by_status(lake: "Lake", run_id: str) -> dict[str, int]:
    """Number of the run's requests that are in the lake, by status."""
    counts = lake.rows("requests", run_id, ["status"])["status"].value_counts().to_pylist()
    return dict(sorted((entry["values"], entry["counts"]) for entry in counts))
