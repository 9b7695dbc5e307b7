"""``tracer upgrade``: a lake of an older version brought up to date."""

import click

from tracer.cli.options import format_option, lake_option, write_json

__all__ = ["command"]


@click.command("upgrade")
@lake_option
@format_option("table", "json")
def command(lake_path: str, output_format: str) -> None:
    """Bring a lake that an older version made up to date, in place.

    Adds columns and settings that came since. Rows stay as they are; others may read and write the
    lake meanwhile.

    \b
    Example:
        tracer upgrade --lake old-lake
    """
    from tracer.store.upgrade import upgrade_lake

    added = upgrade_lake(lake_path)
    if output_format == "json":
        write_json({"added": added})
        return
    for line in added:
        click.echo(f"added {line}")
    if not added:
        click.echo(f"{lake_path} is up to date")
