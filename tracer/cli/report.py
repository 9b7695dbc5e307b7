"""``tracer report``: one HTML file that opens anywhere."""

from pathlib import Path

import click

from tracer.cli.options import domains_option, lake_option, min_presence_option, run_option

__all__ = ["command"]


@click.command("report")
@run_option
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("report.html"),
    show_default=True,
    help="File to write.",
)
@min_presence_option
@domains_option
@click.option(
    "--allow-missing-tokens",
    is_flag=True,
    help="Go on where prefix caching left prompt tokens without rows; the page says how many.",
)
@click.option(
    "--draws",
    type=click.IntRange(min=0),
    help="Draws of chance, and as many of requests for intervals; 0 makes none.  [default: 199]",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Seed of all draws; the same seed gives the same page.",
)
@click.option("--compare", metavar="RUN", help="Another run of the lake to show beside this one.")
@click.option(
    "--figures",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder for the figures as SVG and PNG files; one with figures only is replaced.",
)
@click.option(
    "--svg-only",
    is_flag=True,
    help="Leave out the PNG files of --figures, which need the extra `figures`.",
)
@click.option(
    "--token-roles",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="CSV or JSON with layer_id, expert_id, token_id and, if known, token: shown as a table.",
)
@lake_option
def command(
    run_id: str | None,
    output: Path,
    min_presence: float,
    domains_file: Path | None,
    allow_missing_tokens: bool,
    draws: int | None,
    seed: int,
    compare: str | None,
    figures: Path | None,
    svg_only: bool,
    token_roles: Path | None,
    lake_path: str,
) -> None:
    """Write a self-contained HTML report of one run.

    Committees per layer, heatmaps of experts by layer and by domain, coverage and all other numbers
    over depth, Jaccard matrix and Lorenz curves, over prompt tokens, over generated tokens where
    there are any, and as the authors' script computes it. The numbers behind every figure can be
    saved from the page.

    \b
    Examples:
        tracer report
        tracer report --run demo --output demo.html
        tracer report --run demo --compare other-run
        tracer report --figures figures --svg-only
    """
    from tracer.domain_map import load_domains
    from tracer.store.lake import Lake
    from tracer.workflow.progress import counting
    from tracer.workflow.report import write_report

    domains = load_domains(domains_file) if domains_file else None
    with counting("layers drawn:") as drawn:
        path = write_report(
            Lake.open(lake_path),
            run_id,
            output,
            min_presence=min_presence,
            domains=domains,
            allow_missing_tokens=allow_missing_tokens,
            compare=compare,
            figures=figures,
            png=not svg_only,
            token_roles=token_roles,
            draws=draws,
            seed=seed,
            progress=drawn,
        )
    if figures is not None:
        click.echo(f"figures: {figures}")
    click.echo(f"report: {path} ({path.stat().st_size / 1e3:,.0f} kB)")
