"""``tracer delete``: a run out of every table."""

import sys

import click

from tracer.cli.options import format_option, keep_option, lake_option, write_json
from tracer.errors import InputError

__all__ = ["command"]


@click.command("delete")
@click.option("--run", "run_id", required=True, help="Run to delete.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@keep_option
@lake_option
@format_option("table", "json")
def command(run_id: str, yes: bool, keep_hours: float, lake_path: str, output_format: str) -> None:
    """Remove a run and all its rows from the lake.

    No reader finds the run from then on. Its files stay on disk for those who are reading them and
    are removed by the first `tracer delete` or `tracer compact` after so many hours; `--keep-hours
    0` removes them at once. Interrupted, the same command goes on.

    \b
    Examples:
        tracer delete --run demo
        tracer delete --run demo --yes --keep-hours 0
    """
    from tracer.store.delete import delete_run
    from tracer.store.lake import Lake
    from tracer.store.removed_files import remove_expired
    from tracer.workflow.progress import counting

    lake = Lake.open(lake_path)
    if not yes:
        if not sys.stdin.isatty():
            raise InputError("nobody is there to confirm", "pass --yes.")
        click.confirm(f"Delete run {run_id} of {lake_path} for good?", abort=True, err=True)
    with counting("deleted from tables:") as done:
        num_bytes = delete_run(lake, run_id, done)
    files, freed = remove_expired(lake, keep_hours)
    if output_format == "json":
        write_json(
            {
                "run_id": run_id,
                "bytes_deleted": num_bytes,
                "files_removed": files,
                "bytes_freed": freed,
            }
        )
        return
    click.echo(
        f"run {run_id}: deleted, {num_bytes / 1e6:,.1f} MB;"
        f" {files:,} files of {freed / 1e6:,.1f} MB removed from disk"
    )
