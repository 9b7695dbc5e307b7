"""``tracer query``: a measure of the catalogue on a run, with chance levels and intervals."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tracer.cli.options import domains_option, format_option, lake_option, run_option, write_json
from tracer.records import TOKEN_SCOPES

if TYPE_CHECKING:
    from tracer.analysis.measures.catalogue import Bind, Measure

__all__ = ["command"]

_DEFAULT = click.core.ParameterSource.DEFAULT
_FORMATS = {".csv": "csv", ".json": "json", ".parquet": "parquet"}
_BIND = "bind_"  # before the names of a measure's own options, so that none meets another


class _Requests(click.ParamType[int | None]):
    """A number of requests, or `all`."""

    name = "requests"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | None:
        if value is None or value == "all":
            return None
        try:
            number = int(value)
        except ValueError:
            number = 0
        if number < 1:
            self.fail(f"{value!r} is neither a number from 1 on nor `all`.", param, ctx)
        return number


class _Measures(click.Group):
    """One command per measure, made of its header when it is called for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        from tracer.analysis.measures.catalogue import measure_names

        del ctx
        return measure_names()

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command:
        from tracer.analysis.measures.catalogue import measure_named

        del ctx
        return _command_of(measure_named(cmd_name))

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Leave them to `tracer query`, which says what each answers."""


@click.group(
    "query", cls=_Measures, invoke_without_command=True, subcommand_metavar="[MEASURE [OPTIONS]]"
)
@format_option("table", "json")
@click.pass_context
def command(context: click.Context, output_format: str) -> None:
    """Take a MEASURE of a run; without one, list all by the questions they answer.

    \b
    Examples:
        tracer query
        tracer query expert_load --help
        tracer query expert_load --tokens generated --format csv
    """
    from tracer.analysis.measures.catalogue import measure_named, measure_names

    if context.invoked_subcommand is not None:
        if context.get_parameter_source("output_format") is not _DEFAULT:
            raise click.UsageError("--format belongs behind the name of the measure.")
        return
    measures = [measure_named(name) for name in measure_names()]
    if output_format == "json":
        write_json([{"name": measure.name, "question": measure.asks} for measure in measures])
        return
    from tracer.cli.tables import print_table

    print_table(["name", "question"], [[measure.name, measure.asks] for measure in measures])
    click.echo("`tracer query NAME --help` says what one yields and takes.", err=True)


def _command_of(measure: "Measure") -> click.Command:
    """The command that takes ``measure``."""

    @click.pass_context
    def take(context: click.Context, /, **given: Any) -> None:
        _take(context, measure, **given)

    made = click.command(measure.name, help=_help(measure), short_help=measure.asks)(take)
    made.params = [*map(_bind_option, measure.binds), *_common_options(measure)]
    return made


def _bind_option(bind: "Bind") -> click.Option:
    return click.Option(
        [f"--{bind.name.replace('_', '-')}", f"{_BIND}{bind.name}"],
        type=click.Choice(bind.choices) if bind.choices else type(bind.default),
        default=bind.default,
        show_default=True,
        help=bind.doc[:1].upper() + bind.doc[1:],
    )


def _common_options(measure: "Measure") -> list[click.Parameter]:
    @run_option
    @click.option(
        "--tokens",
        type=click.Choice(TOKEN_SCOPES),
        default="all",
        show_default=True,
        help="Tokens to count.",
    )
    @domains_option
    @click.option(
        "--exclude-template",
        is_flag=True,
        help="Leave out the tokens that all prompts begin and end with, as a chat template's do.",
    )
    @click.option(
        "--requests",
        type=_Requests(),
        metavar="N|all",
        default="all",
        show_default=True,
        help="Most requests to take, a random choice where there are more.",
    )
    @click.option(
        "--draws",
        type=click.IntRange(0),
        default=99,
        show_default=True,
        help="Draws for chance levels, and as many for intervals; 0 has neither.",
    )
    @click.option(
        "--seed",
        type=click.IntRange(0),
        default=0,
        show_default=True,
        help="Of all draws and of the choice of requests.",
    )
    @click.option(
        "--level",
        type=click.FloatRange(0, 1, min_open=True, max_open=True),
        default=0.95,
        show_default=True,
        help="Of intervals and bands of chance.",
    )
    @click.option(
        "--engine",
        type=click.Choice(("duckdb", "polars", "spark")),
        default="duckdb",
        show_default=True,
        help="What runs the SQL; the other two have no draws.",
    )
    @click.option(
        "--sql",
        "print_sql",
        is_flag=True,
        help="Print the SQL instead, options in it as literals.",
    )
    @click.option("--master", help="URL of a Spark master.  [default: this process]")
    @lake_option
    @click.option(
        "--output",
        type=click.Path(dir_okay=False, path_type=Path),
        help="Write the result to a file; without --format as its suffix says, else as CSV.",
    )
    @format_option("table", "json", "csv", "parquet")
    def common() -> None: ...

    options: list[click.Parameter] = common.__click_params__[::-1]  # type: ignore[attr-defined]
    if measure.compares:
        other = click.Option(["--other-run", "other_run_id"], help="The run to compare with.")
        options.insert(1, other)
    return options


def _help(measure: "Measure") -> str:
    """The header as a manual: meaning, question, source, columns, chance, an example."""
    from tracer.analysis.measures.nulls import null_words

    width = max(len(column.name) for column in measure.columns)
    columns = [f"    {column.name:<{width}}  {column.unit}".rstrip() for column in measure.columns]
    per = f", one row per {', '.join(measure.key)}" if measure.key else ", one row"
    paragraphs = [
        measure.meaning[:1].upper() + measure.meaning[1:],
        measure.doc,
        f"Question: {measure.asks}",
        f"Source: {measure.source}" if measure.source else "",
        "\n".join(["\b", f"Columns{per}:", *columns]),
        f"Chance ({measure.null}): {null_words()[measure.null]}."
        if measure.null
        else f"No chance level: {measure.no_null}",
        _added(measure),
        f"\b\nExample:\n    tracer query {measure.name}"
        + (" --run ONE --other-run ANOTHER" if measure.compares else ""),
    ]
    return "\n\n".join(part for part in paragraphs if part)


def _added(measure: "Measure") -> str:
    """Which columns stand behind each value."""
    if not measure.values:
        return ""
    columns = "an interval (_low, _high)"
    if measure.null:
        columns += (
            ", the mean of chance (_chance), its band (_chance_low, _chance_high), the probability"
            " of a value as far from chance (_p) and that corrected for all rows (_p_adjusted)"
        )
    return (
        f"Behind each of {', '.join(measure.values)}: {columns}. A table shows the interval, the"
        " band of chance and the corrected probability."
    )


def _take(
    context: click.Context,
    measure: "Measure",
    *,
    lake_path: str,
    run_id: str | None,
    domains_file: Path | None,
    output: Path | None,
    output_format: str,
    engine: str,
    master: str | None,
    print_sql: bool,
    other_run_id: str | None = None,
    **given: Any,
) -> None:
    from tracer.analysis.measures.engines import with_literals
    from tracer.analysis.measures.run import Settings, run_measure
    from tracer.cli.frames import narrow, print_frame, write_frame
    from tracer.domain_map import load_domains
    from tracer.store.lake import Lake
    from tracer.workflow.progress import drawing

    binds = {bind.name: given.pop(f"{_BIND}{bind.name}") for bind in measure.binds}
    if print_sql:
        click.echo(with_literals(measure.sql, binds), nl=False)
        return
    if output is not None and context.get_parameter_source("output_format") is _DEFAULT:
        output_format = _FORMATS.get(output.suffix.lower(), output_format)
    if output_format == "parquet" and output is None:
        raise click.UsageError("--format parquet needs --output.")
    if output is not None and not output.parent.is_dir():
        raise click.UsageError(f"--output: there is no folder {str(output.parent)!r}.")
    if master is not None and engine != "spark":
        raise click.UsageError("--master belongs to --engine spark.")
    if measure.compares and other_run_id is None:
        raise click.UsageError(f"{measure.name} compares two runs: name one with --other-run.")
    settings = Settings(domains=load_domains(domains_file) if domains_file else None, **given)
    with drawing() as progress:
        result = run_measure(
            Lake.open(lake_path),
            measure.name,
            run_id=run_id,
            other_run_id=other_run_id,
            settings=settings,
            binds=binds,
            progress=progress,
            engine=engine,
            master=master,
        )
    for note in result.notes:
        click.echo(f"Note: {note}", err=True)
    if output is None and output_format == "table":
        print_frame(narrow(result.frame, measure), output_format)
    elif output is None:
        print_frame(result.frame, output_format)
    else:
        write_frame(result.frame, output_format, output)
