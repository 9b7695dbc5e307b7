"""``tracer sql``: ad-hoc DuckDB on a lake."""

import sys
from pathlib import Path

import click

from tracer.cli.options import format_option, lake_option

__all__ = ["command"]

_FORMATS = {".csv": "csv", ".json": "json", ".parquet": "parquet"}


@click.command("sql")
@click.argument("query", required=False)
@lake_option
@click.option(
    "--print-views", is_flag=True, help="Print the views' SQL, for use in a plain duckdb shell."
)
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the result to a file; without --format as its suffix says, else as CSV.",
)
@format_option("table", "json", "csv", "parquet")
@click.pass_context
def command(
    context: click.Context,
    query: str | None,
    lake_path: str,
    print_views: bool,
    output: Path | None,
    output_format: str,
) -> None:
    """Run one QUERY that reads; `-` takes it from standard input.

    Views: runs, requests, tokens, routing, choices (one row per chosen expert), usage,
    usage_by_domain.

    \b
    Examples:
        tracer sql "SELECT domain, count(*) FROM requests GROUP BY 1"
        tracer sql "SELECT * FROM choices WHERE layer_id = 3 AND rank = 1 LIMIT 10" --format csv
        tracer sql --print-views > views.sql && duckdb -init views.sql
    """
    from tracer.analysis.sql import connect, run_sql
    from tracer.analysis.views import views_of
    from tracer.store.lake import Lake

    if print_views == bool(query):
        raise click.UsageError("give either a query or --print-views.")
    if print_views and output is not None:
        raise click.UsageError("--print-views prints; it has no use for --output.")
    source = context.get_parameter_source("output_format")
    if output is not None and source is click.core.ParameterSource.DEFAULT:
        output_format = _FORMATS.get(output.suffix.lower(), output_format)
    lake = Lake.open(lake_path)
    if print_views:
        for statement in views_of(lake, files_only=True).statements.values():
            click.echo(f"{statement.strip().rstrip(';')};")
        return
    if query == "-":
        query = sys.stdin.read()
    if output_format == "parquet" and output is None:
        raise click.UsageError("--format parquet needs --output.")
    frame = run_sql(connect(lake), str(query))
    from tracer.cli.frames import print_frame, write_frame

    if output is None:
        print_frame(frame, output_format)
    else:
        write_frame(frame, output_format, output)
