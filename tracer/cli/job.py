"""``tracer job``: capture, audit and report from one file, for a scheduler."""

from pathlib import Path

import click

from tracer.cli.options import write_json

__all__ = ["command"]


@click.group("job")
def command() -> None:
    """Run a job file: capture, audit and report in one go."""


@command.command("run")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--lake",
    "lake_path",
    type=click.Path(),
    envvar="TRACER_LAKE",
    show_envvar=True,
    help="The trace lake.  [default: the file's `lake`, else lake beside the file]",
)
@click.option("--verbose", is_flag=True, help="Show the engine's log.")
def run(file: Path, lake_path: str | None, verbose: bool) -> None:
    """Run the job of FILE and print a JSON summary.

    Steps that are done already are skipped, an interrupted capture is resumed, so a scheduler
    may start it as often as it likes. Exit code 0 means every step is done.

    \b
    Examples:
        tracer job run pipelines/demo.yaml
        tracer job run nightly.yaml > summary.json
    """
    from tracer.workflow.job import run_job
    from tracer.workflow.job_file import load_job

    write_json(run_job(load_job(file), lake_path=lake_path, verbose=verbose))
