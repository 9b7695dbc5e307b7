"""``tracer compact``: small files into few, while others read and write."""

import click

from tracer.cli.options import format_option, keep_option, lake_option, write_json

__all__ = ["command"]


@click.command("compact")
@click.option("--run", "run_id", help="Run to compact.  [default: every run]")
@keep_option
@lake_option
@format_option("table", "json")
def command(run_id: str | None, keep_hours: float, lake_path: str, output_format: str) -> None:
    """Merge the small files of a run into files of about 8 million choices.

    Rows and their order stay, with one row group per layer. Readers see a table before a merge or
    after it, writers are not held up, and interrupted the same command goes on. The small files
    stay on disk for so many hours, for those who are reading them; the first `tracer compact` or
    `tracer delete` after that removes them.

    \b
    Examples:
        tracer compact
        tracer compact --run demo --keep-hours 0
    """
    from tracer.store.compact import compact_run
    from tracer.store.lake import Lake
    from tracer.store.removed_files import remove_expired
    from tracer.workflow.progress import counting

    lake = Lake.open(lake_path)
    names = [lake.run(run_id)["run_id"]] if run_id else [run["run_id"] for run in lake.runs()]
    before = after = 0
    with counting("compacted tables:") as done:
        for name in names:
            result = compact_run(lake, name, done)
            before += result.before
            after += result.after
    files, freed = remove_expired(lake, keep_hours)
    if output_format == "json":
        write_json(
            {
                "runs": names,
                "files_before": before,
                "files_after": after,
                "files_removed": files,
                "bytes_freed": freed,
            }
        )
        return
    click.echo(
        f"{before:,} files of {len(names):,} run{'' if len(names) == 1 else 's'} became {after:,};"
        f" {files:,} old ones of {freed / 1e6:,.1f} MB removed from disk"
    )
