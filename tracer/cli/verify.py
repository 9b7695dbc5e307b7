"""``tracer verify``: whether everything in the lake is as it was written."""

import click

from tracer.cli.options import format_option, lake_option, run_option, write_json

__all__ = ["command"]


@click.command("verify")
@run_option
@click.option(
    "--repair",
    is_flag=True,
    help="Finish what a crash left half done, and remove files that no table names. Removes nothing"
    " that a reader can see.",
)
@lake_option
@format_option("table", "json")
def command(run_id: str | None, repair: bool, lake_path: str, output_format: str) -> int:
    """Check every file and every row of a lake, or of one run.

    Files: gone, cut off, changed since they were committed, unreadable. Rows: requests without
    all their rows, keys that occur twice, experts that do not exist, weights that are not numbers
    or do not descend, sums that are not those of the rows. Exits with 1 if anything is wrong.

    \b
    Examples:
        tracer verify
        tracer verify --run demo --repair
        tracer verify --format json | jq '.faults[].path'
    """
    from tracer.store.lake import Lake
    from tracer.workflow.progress import counting
    from tracer.workflow.verify import verify_lake

    with counting("checked") as checked:
        result = verify_lake(Lake.open(lake_path), run_id, repair=repair, checked=checked)
    faults = [fault.to_dict() for fault in result.faults]
    if output_format == "json":
        write_json(
            {
                "faults": faults,
                "repaired": result.repaired,
                "num_files": result.num_files,
                "num_runs": result.num_runs,
            }
        )
    else:
        from tracer.cli.tables import print_table

        for line in result.repaired:
            click.echo(line)
        if faults:
            columns = ["check", "run", "request", "layer", "what", "file"]
            keys = ["check", "run_id", "request_id", "layer_id", "detail", "path"]
            cells = [["" if f[key] is None else str(f[key]) for key in keys] for f in faults]
            print_table(columns, cells)
        click.echo(
            f"{result.num_files:,} files and the rows of {result.num_runs:,}"
            f" run{'' if result.num_runs == 1 else 's'} checked:"
            f" {len(faults) or 'no'} fault{'' if len(faults) == 1 else 's'}"
        )
    return 1 if faults else 0
