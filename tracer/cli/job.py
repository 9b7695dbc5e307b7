"""``tracer job``: capture, verify, audit, compare and report from one file, for a scheduler."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from tracer.cli.options import format_option, json_text, write_json

__all__ = ["command"]

_Command = TypeVar("_Command", bound=Callable[..., Any])


def _lake_option(command: _Command) -> _Command:
    return click.option(
        "--lake",
        "lake_path",
        type=click.Path(),
        envvar="TRACER_LAKE",
        show_envvar=True,
        help="The trace lake.  [default: the file's `lake`, else lake beside the file]",
    )(command)


def _choice_options(command: _Command) -> _Command:
    only = click.option(
        "--only",
        multiple=True,
        metavar="N|MODEL/DATASET",
        help="This combination alone, by its number in the plan or by name; repeatable.",
    )
    period = click.option(
        "--period",
        metavar="PERIOD",
        help="Another hour, day, week or month than this one, such as 2026-11-27.",
    )
    return only(period(command))


_FILE = click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))


@click.group("job")
def command() -> None:
    """Run a job file: models x datasets, captured, checked, audited, compared, reported."""


@command.command("run")
@_FILE
@_choice_options
@_lake_option
@click.option("--verbose", is_flag=True, help="Show the engine's log.")
def run(
    file: Path, only: tuple[str, ...], period: str | None, lake_path: str | None, verbose: bool
) -> int:
    """Run the job of FILE and print a JSON summary.

    Of every model with every dataset: capture, verify, audit, compare with the last good run,
    report, remove old runs. Steps that are done already are skipped, an interrupted capture is
    resumed, so a scheduler may start it as often as it likes. One combination that fails stops no
    other.

    Exit code: 0, all passed; 1, a limit was not kept; else the highest of the errors: 2 input, 3
    damaged data, 4 engine, 70 unexpected.

    \b
    Examples:
        tracer job run pipelines/demo.yaml
        tracer job run nightly.yaml > summary.json
        tracer job run nightly.yaml --only 2 --period 2026-11-27
    """
    from tracer.workflow.job import run_job
    from tracer.workflow.job_load import load_job

    summary = run_job(
        load_job(file),
        lake_path=lake_path,
        only=only,
        period=period,
        verbose=verbose,
        note=lambda words: click.echo(f"job: {words}", err=True),
    )
    write_json(summary)
    for one in summary["combinations"]:
        title = f"{one['model']}/{one['dataset']}"
        for words in [] if one["good"] else one["breaches"]:
            click.echo(f"Breach: {title}: {words}", err=True)
        if one["error"] is not None:
            click.echo(f"Error: {title}: {' '.join(one['error']['message'].split())}", err=True)
            if hint := one["error"]["hint"]:
                click.echo(f"Hint: {' '.join(hint.split())}", err=True)
    return int(summary["exit_code"])


@command.command("plan")
@_FILE
@_choice_options
@_lake_option
@format_option("table", "json")
def plan(
    file: Path,
    only: tuple[str, ...],
    period: str | None,
    lake_path: str | None,
    output_format: str,
) -> None:
    """Show what `tracer job run FILE` would do and why; starts no engine, writes nothing.

    \b
    Examples:
        tracer job plan pipelines/demo.yaml
        tracer job plan nightly.yaml --format json | jq '.[] | select(.action != "skip")'
    """
    from tracer.workflow.job_load import load_job
    from tracer.workflow.job_plan import plan_job

    steps = plan_job(load_job(file), lake_path=lake_path, only=only, period=period)
    if output_format == "json":
        write_json([step.to_dict() for step in steps])
        return
    from tracer.cli.tables import print_table

    columns = ["number", "model", "dataset", "run_id", "step", "action", "why"]
    print_table(
        ["#", "model", "dataset", "run", "step", "action", "why"],
        [["" if (v := getattr(one, c)) is None else str(v) for c in columns] for one in steps],
    )


@command.command("accept")
@_FILE
@click.option("--run", "run_id", required=True, help="Run to call good.")
@_lake_option
def accept(file: Path, run_id: str, lake_path: str | None) -> None:
    """Call a run good that went beyond limits: later runs are compared with it.

    \b
    Examples:
        tracer job accept nightly.yaml --run OLMoE-mmlu-2026-11-27-1f0c2a9b
    """
    from tracer.workflow.job import accept_run
    from tracer.workflow.job_load import load_job

    accept_run(load_job(file), run_id, lake_path)
    click.echo(f"run {run_id}: accepted")


@command.command("schema")
def schema() -> None:
    """Print the JSON schema of job files, for editors.

    \b
    Examples:
        tracer job schema > job.schema.json
    """
    from tracer.workflow.job_file import job_schema

    click.echo(json_text(job_schema(), indent=2))
