"""Nulls of what requests used in all: random draws of sums of choices (``nulls`` lists them)."""

import numpy as np
import polars as pl

from tracer.analysis.measures.redraw import Redraw

__all__ = ["dealt_choices", "exchanged_phases"]


def exchanged_phases(redraw: Redraw, rng: np.random.Generator) -> None:
    """Requests with both phases exchange their generated parts, all layers together.

    Source: Mantel (1967), The detection of disease clustering and a generalized regression
    approach.
    """
    entries = redraw.recorded("phase_usage_entries")
    generated = pl.col("phase") == "generated"
    prompts = entries.filter(~generated).select("origin").unique()
    both = entries.filter(generated).select("origin").unique().join(prompts, on="origin")
    origins = both["origin"].sort()
    moved = pl.DataFrame({"origin": origins, "moved": origins[rng.permutation(len(origins))]})
    new = pl.when(generated).then(pl.coalesce("moved", "origin")).otherwise("origin")
    redraw.put(
        "phase_usage_entries",
        entries.join(moved, on="origin", how="left", maintain_order="left")
        .with_columns(origin=new)
        .select(entries.columns),
    )


def dealt_choices(redraw: Redraw, rng: np.random.Generator) -> None:
    """Choices of each layer are dealt anew among its requests, each choice on its own.

    Experts keep their loads and requests their numbers of choices, as in a table of fixed margins
    without association; that a token's choices differ is not kept. A choice has its expert's mean
    gate weight.
    """
    entries = redraw.recorded("usage_entries")
    layers = entries.partition_by("layer_id", maintain_order=True)
    drawn = pl.concat([_dealt_layer(layer, rng) for layer in layers])
    redraw.put("usage_entries", drawn.select(entries.columns))


def _dealt_layer(entries: pl.DataFrame, rng: np.random.Generator) -> pl.DataFrame:
    names = entries["origin"].unique().sort()
    ids = entries["expert_id"].to_numpy().astype(np.int64)
    counts = entries["num_choices"].to_numpy()
    width = int(ids.max()) + 1
    request = names.search_sorted(entries["origin"]).to_numpy().astype(np.int64)
    dealt = np.repeat(request, counts) * width + rng.permutation(np.repeat(ids, counts))
    cells, num_choices = np.unique(dealt, return_counts=True)
    row, expert = np.divmod(cells, width)
    weights = np.bincount(ids, entries["weight_sum"].to_numpy(), width)
    mean = weights / np.maximum(np.bincount(ids, counts, width), 1)
    return pl.DataFrame(
        {
            "origin": names[row],
            "layer_id": pl.repeat(entries["layer_id"][0], len(row), eager=True),
            "expert_id": expert,
            "num_choices": num_choices,
            "weight_sum": num_choices * mean[expert],
        }
    ).cast(entries.schema)
