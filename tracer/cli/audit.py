"""``tracer audit``: the standing committee of every layer."""

from pathlib import Path

import click

from tracer.cli.options import (
    domains_option,
    format_option,
    lake_option,
    min_presence_option,
    run_option,
)
from tracer.records import AUDIT_MODES, TOKEN_SCOPES, audit_draws

__all__ = ["command"]


@click.command("audit")
@run_option
@click.option(
    "--mode",
    type=click.Choice(AUDIT_MODES),
    default="gate",
    show_default=True,
    help="gate: mean gate weight; reference: as the authors' script computes it; paper: mean"
    " probability over all experts, of runs with router logits.",
)
@click.option(
    "--tokens",
    type=click.Choice(TOKEN_SCOPES),
    help="Tokens to count.  [default: prompt; last-prompt in the other modes]",
)
@min_presence_option
@click.option(
    "--rank-cutoff",
    type=click.IntRange(min=1),
    help="How deep each domain's list of experts goes.  [default: the run's top-k]",
)
@domains_option
@click.option(
    "--allow-missing-tokens",
    is_flag=True,
    help="Go on where prefix caching left prompt tokens without rows; the output says how many.",
)
@click.option(
    "--draws",
    type=click.IntRange(min=0),
    help="Draws of chance, and as many of requests for intervals; 0 makes none.  [default: 199; 0"
    " in reference mode, which has none]",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Seed of all draws; the same seed gives the same output.",
)
@click.option(
    "--same-token",
    is_flag=True,
    help="Also compare each token with the same ids elsewhere: whether domains differ beyond their"
    " words. Reads every row of the run.",
)
@click.option(
    "--exclude-template",
    is_flag=True,
    help="Leave out the tokens that all prompts begin and end with, as a chat template's do. Reads"
    " every row of the run.",
)
@lake_option
@format_option("table", "csv", "json")
def command(
    run_id: str | None,
    mode: str,
    tokens: str | None,
    min_presence: float,
    rank_cutoff: int | None,
    domains_file: Path | None,
    allow_missing_tokens: bool,
    draws: int | None,
    seed: int,
    same_token: bool,
    exclude_template: bool,
    lake_path: str,
    output_format: str,
) -> None:
    """Find each layer's standing committee (COMMITTEEAUDIT, arXiv 2601.03425).

    Coverage and influence density are printed beside what equal weights would give; the Jaccard
    index of the domains beside what two random sets would have. Every number gets an interval from
    requests drawn anew and a chance level: of agreement across domains with expert ids exchanged in
    each domain, of differences between domains with domains exchanged over requests. The verdicts
    hold 5 % over all layers together.

    \b
    Examples:
        tracer audit
        tracer audit --tokens generated --format json
        tracer audit --draws 999 --seed 1
        tracer audit --mode reference --format csv > table.csv
    """
    from tracer.analysis.audit import audit
    from tracer.domain_map import load_domains
    from tracer.report.audit_text import render_csv, render_json, render_table
    from tracer.store.lake import Lake
    from tracer.workflow.progress import counting

    if draws is None:
        draws = audit_draws(mode)
    with counting("layers drawn:") as drawn:
        result = audit(
            Lake.open(lake_path),
            run_id=run_id,
            mode=mode,
            tokens=tokens,
            min_presence=min_presence,
            rank_cutoff=rank_cutoff,
            domains=load_domains(domains_file) if domains_file else None,
            allow_missing_tokens=allow_missing_tokens,
            draws=draws,
            seed=seed,
            same_token=same_token,
            exclude_template=exclude_template,
            progress=drawn,
        )
    render = {"table": render_table, "csv": render_csv, "json": render_json}[output_format]
    click.echo(render(result).rstrip("\n"))
