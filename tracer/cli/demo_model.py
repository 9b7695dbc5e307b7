"""``tracer demo-model``: a small model whose routing is known."""

from pathlib import Path

import click

from tracer.cli.options import format_option, write_json

__all__ = ["command"]


@click.command("demo-model")
@click.argument("directory", type=click.Path(path_type=Path))
@click.option(
    "--architecture",
    type=click.Choice(["olmoe", "qwen3_moe", "deepseek_v2"]),
    default="olmoe",
    show_default=True,
    help="Model class to plant in.",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Another seed plants other committees.",
)
@format_option("table", "json")
def command(directory: Path, architecture: str, seed: int, output_format: str) -> None:
    """Write a small planted model to DIRECTORY.

    A real checkpoint in Hugging Face format whose routing is known by construction: a standing
    committee in every layer and experts that serve one domain. The truth stands beside it in
    planted.json.

    \b
    Examples:
        tracer demo-model ./demo-model
        tracer demo-model ./qwen --architecture qwen3_moe --seed 7
    """
    from tracer.demo import write_demo_model

    write_demo_model(directory, architecture=architecture, seed=seed)
    facts = {
        "model": str(directory),
        "architecture": architecture,
        "seed": seed,
        "truth": str(directory / "planted.json"),
    }
    if output_format == "json":
        write_json(facts)
    else:
        click.echo(
            f"{architecture} model with seed {seed} in {directory}; its planted"
            f" committees are in {facts['truth']}"
        )
