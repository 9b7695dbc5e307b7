"""Measures by Polars: relations as lazy frames, then the same SQL where Polars' SQL can run it."""

from collections.abc import Callable, Mapping, Sequence

import polars as pl
from polars.exceptions import PanicException, PolarsError

from tracer.analysis.measures.engines import Points
from tracer.analysis.measures.pairs import PairCounts
from tracer.errors import InputError, first_line
from tracer.schema import arrow_schema

__all__ = ["take"]

Made = Mapping[str, pl.LazyFrame]
_ROWS = 65_536  # whose pairs of experts are counted at a time
_PLACE = ("request_id", "origin", "domain", "phase", "position", "layer_id")


def take(name: str, points: Points) -> pl.DataFrame:
    """Rows of the measure ``name``.

    Raises:
        InputError: Polars' SQL cannot run it.
    """
    tables = {table: _scan(table, files) for table, files in points.files.items()}
    made = tables | {frame: held.lazy() for frame, held in points.frames.items()}
    step = "its own text"
    try:
        for relation in points.relations:
            step = f"the relation {relation.name}"
            if relation.plain in _UNNESTED:
                side = tables | _of_run(made, relation.name.removesuffix(relation.plain))
                made[relation.name] = _UNNESTED[relation.plain](side)
            else:
                made[relation.name] = pl.SQLContext(made).execute(relation.text)
        step = "its own text"
        return pl.SQLContext(made).execute(points.text).collect()
    except (PolarsError, PanicException) as error:
        raise InputError(
            f"Polars' SQL cannot run the measure {name!r}, in {step}: {first_line(error)}",
            "--engine duckdb runs every measure.",
        ) from error


def _scan(table: str, files: Sequence[str]) -> pl.LazyFrame:
    empty: pl.DataFrame = pl.from_arrow(arrow_schema(table).empty_table())  # type: ignore[assignment]
    if not files:
        return empty.lazy()
    return pl.scan_parquet(
        list(files),
        hive_partitioning=False,
        glob=False,
        schema=empty.schema,
        missing_columns="insert",  # columns that are younger than a file
    )


def _of_run(made: Made, prefix: str) -> dict[str, pl.LazyFrame]:
    """The relations of one run by their names in ``queries/inputs``."""
    return {name.removeprefix(prefix): made[name] for name in made if name.startswith(prefix)}


def _experts(made: Made) -> pl.LazyFrame:
    """As ``queries/inputs/experts.sql``."""
    layers = made["asked"].select(
        pl.col("moe_layers").alias("layer_id"),
        pl.int_ranges(0, pl.col("num_experts"), dtype=pl.Int16).alias("expert_id"),
    )
    return layers.explode("layer_id").explode("expert_id").cast({"layer_id": pl.Int16})


def _usage_entries(made: Made) -> pl.LazyFrame:
    """As ``queries/inputs/usage_entries.sql``."""
    lists = ["expert_ids", "num_choices", "weight_sum"]
    scope = pl.col("tokens")
    both = (scope == "all") & pl.col("phase").is_in(["prompt", "generated"])
    return (
        made["usage"]
        .join(made["asked"].select("run_id", "tokens"), on="run_id")
        .filter((pl.col("phase") == scope) | both)
        .rename({"request_id": "origin"})
        .join(made["scoped_requests"].select("origin"), on="origin", how="semi")
        .select("origin", "layer_id", *lists)
        .explode(lists)
        .rename({"expert_ids": "expert_id"})
        .group_by("origin", "layer_id", "expert_id")
        .agg(pl.col("num_choices").cast(pl.Int64).sum(), pl.col("weight_sum").sum())
    )


def _expert_choices(made: Made) -> pl.LazyFrame:
    """As ``queries/inputs/expert_choices.sql``."""
    lists = {"expert_ids": "expert_id", "gate_weights": "gate_weight"}
    ranks = pl.int_ranges(1, pl.col("expert_ids").list.len() + 1, dtype=pl.Int32)
    return (
        made["routed_tokens"]
        .with_columns(rank=ranks)
        .select(*_PLACE, "rank", *lists)
        .explode("rank", *lists)
        .rename(lists)
        .cast({"gate_weight": pl.Float64})
    )


def _expert_pairs(made: Made) -> pl.LazyFrame:
    """As ``queries/inputs/expert_pairs.sql``."""
    asked = made["asked"].select("num_experts", "top_k").collect()

    def counted(rows: pl.DataFrame) -> pl.DataFrame:
        counts = PairCounts(*asked.row(0))
        for part in rows.iter_slices(_ROWS):
            counts.add(part)
        return counts.frame()

    rows = made["routed_tokens"].select("layer_id", "expert_ids")
    return rows.map_batches(counted, schema=PairCounts(1, 1).frame().schema)


def _expert_logits(made: Made) -> pl.LazyFrame:
    """As ``queries/inputs/expert_logits.sql``."""
    requests = made["scoped_requests"].select("request_id", "origin", "domain")
    ids = pl.int_ranges(0, pl.col("logits").list.len(), dtype=pl.Int16)
    columns = [name for name in _PLACE if name != "phase"]
    return (
        made["logit_entries"]
        .join(requests, on="origin")
        .with_columns(expert_id=ids)
        .select(*columns, "expert_id", pl.col("logits").alias("logit"))
        .explode("expert_id", "logit")
        .cast({"logit": pl.Float64})
    )


def _router_weights(made: Made) -> pl.LazyFrame:
    """The router matrix of each layer, one row per weight."""
    place, width = pl.col("place"), pl.col("hidden_size")
    return (
        made["routers"]
        .join(made["asked"].select("run_id"), on="run_id")
        .with_columns(place=pl.int_ranges(0, pl.col("weight").list.len()))
        .select("layer_id", "hidden_size", "place", "weight")
        .explode("place", "weight")
        .select(
            "layer_id",
            (place // width).cast(pl.Int16).alias("expert_id"),
            (place % width).cast(pl.Int32).alias("dimension"),
            pl.col("weight").cast(pl.Float64),
        )
    )


def _cells(made: Made) -> pl.LazyFrame:
    """As ``queries/inputs/cells.sql``."""
    place = pl.int_range(1, 65, dtype=pl.Int32)
    return (
        made["asked"]
        .select(place.alias("cell"))
        .with_columns(low=((pl.col("cell") - 1) / 64) ** 4, high=(pl.col("cell") / 64) ** 4)
    )


def _cosine_entries(made: Made) -> pl.LazyFrame:
    """As ``queries/inputs/cosine_entries.sql``."""
    weights = _router_weights(made)
    lengths = weights.group_by("layer_id", "expert_id").agg(
        length=pl.col("weight").pow(2).sum().sqrt()
    )
    rows = weights.join(lengths, on=["layer_id", "expert_id"])
    others = rows.rename({"expert_id": "other_expert_id"})
    length = pl.col("length") * pl.col("length_right")
    return (
        rows.join(others, on=["layer_id", "dimension"])
        .filter(pl.col("expert_id") != pl.col("other_expert_id"))
        .group_by("layer_id", "expert_id", "other_expert_id")
        .agg(
            product=(pl.col("weight") * pl.col("weight_right")).sum(),
            length=length.first(),
        )
        .select(
            "layer_id",
            "expert_id",
            "other_expert_id",
            pl.when(pl.col("length") > 0)
            .then(pl.col("product") / pl.col("length"))
            .alias("cosine"),
        )
    )


def _budget_entries(made: Made) -> pl.LazyFrame:
    """As ``queries/inputs/budget_entries.sql``."""
    return _by_budget(made["routing_entries"], "gate_weights")


def _candidate_entries(made: Made) -> pl.LazyFrame:
    """As ``queries/inputs/candidate_entries.sql``."""
    requests = made["scoped_requests"].select("origin", "num_prompt_tokens").unique()
    scope = ["run_id", "tokens", "template_prefix", "template_suffix"]
    position, end = pl.col("position"), pl.col("num_prompt_tokens")
    phase = {
        "all": pl.lit(value=True),
        "prompt": position < end,
        "generated": position >= end,
        "last-prompt": position == end - 1,
    }
    wanted = [(pl.col("tokens") == name) & there for name, there in phase.items()]
    template = (position < pl.col("template_prefix")) | (
        (position < end) & (position >= end - pl.col("template_suffix"))
    )
    scoped = (
        made["candidates"]
        .join(made["asked"].select(scope), on="run_id")
        .join(requests, left_on="request_id", right_on="origin")
        .filter(pl.any_horizontal(wanted) & ~template)
        .rename({"request_id": "origin"})
    )
    return _by_budget(scoped, "scores")


def _by_budget(tokens: pl.LazyFrame, weights: str) -> pl.LazyFrame:
    """Sums of what each request keeps of ``expert_ids`` and ``weights``, by budget."""
    kept = pl.col("expert_ids", "weight").list.head(pl.col("budget"))
    return (
        tokens.with_columns(
            budget=pl.int_ranges(1, pl.col("expert_ids").list.len() + 1, dtype=pl.Int32),
            weight=pl.col(weights).cast(pl.List(pl.Float64)),
        )
        .select("origin", "layer_id", "budget", "expert_ids", "weight")
        .explode("budget")
        .with_columns(kept)
        .with_columns(whole=pl.col("weight").list.sum())
        .explode("expert_ids", "weight")
        .rename({"expert_ids": "expert_id"})
        .group_by("origin", "layer_id", "budget", "expert_id")
        .agg(
            num_choices=pl.len().cast(pl.Int64),
            weight_sum=pl.col("weight").sum(),
            share_sum=(pl.when(pl.col("whole") > 0).then(pl.col("weight") / pl.col("whole"))).sum(),
        )
    )


# Relations whose texts unnest lists, which is written otherwise in every dialect.
_UNNESTED: dict[str, Callable[[Made], pl.LazyFrame]] = {
    "budget_entries": _budget_entries,
    "candidate_entries": _candidate_entries,
    "cells": _cells,
    "cosine_entries": _cosine_entries,
    "expert_choices": _expert_choices,
    "expert_logits": _expert_logits,
    "expert_pairs": _expert_pairs,
    "experts": _experts,
    "usage_entries": _usage_entries,
}
