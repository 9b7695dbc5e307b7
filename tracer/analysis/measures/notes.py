"""What a reader has to know about the tokens that a measure was taken of."""

import json

import duckdb
import polars as pl

from tracer.analysis.measures.catalogue import Measure
from tracer.analysis.measures.inputs import Asked, has_gate_weights, one_row
from tracer.analysis.sql import run_query
from tracer.errors import InputError
from tracer.records import NO_DOMAIN

__all__ = ["draw_notes", "notes_on"]

_PROMPT_SCOPES = ("prompt", "all")


def notes_on(con: duckdb.DuckDBPyConnection, asked: Asked, prefix: str = "") -> list[str]:
    """Sentences about a run whose relations were made on ``con``.

    Args:
        con: with the views of the lake.
        asked: the run and its tokens.
        prefix: of the run's relations.

    Raises:
        InputError: labels for domains of which none occurs in the run.
    """
    run_id = str(asked.run["run_id"])
    domains = run_query(
        con,
        "domain_requests",
        run_id=run_id,
        tokens=asked.tokens,
        domains=json.dumps(dict(asked.domains)),
    )
    if asked.domains and domains["num_moved"].sum() == 0:
        raise InputError(
            f"none of the {len(asked.domains)} labels given for domains occurs in run {run_id!r}",
            "use values of requests.domain, or of the label `subject`.",
        )
    labelled = domains.filter(pl.col("domain") != NO_DOMAIN)
    counted = domains if labelled.is_empty() else labelled
    (chosen,) = con.sql(f"select count(*) from {prefix}scoped_requests").fetchall()[0]  # noqa: S608
    total = int(counted["num_requests"].sum())
    notes = []
    if chosen < total:
        notes.append(f"{chosen:,} of {total:,} requests of run {run_id!r} were chosen at random.")
    if unlabelled := int(domains["num_requests"].sum()) - total:
        notes.append(f"{unlabelled:,} requests of run {run_id!r} have no domain and are left out.")
    cached = counted["num_cached_tokens"].sum()
    if cached and asked.tokens in _PROMPT_SCOPES:
        notes.append(
            f"{cached:,} of {counted['num_prompt_tokens'].sum():,} prompt tokens of run {run_id!r}"
            " have no rows: they were answered from the prefix cache."
        )
    if asked.tokens == "last-prompt":
        requests, different = one_row(con, "last_prompt_tokens", prefix)
        if requests > 1 and different == 1:
            notes.append(
                f"the last prompt token of run {run_id!r} is the same in all requests: what is seen"
                " is how a template's token is routed."
            )
    if asked.exclude_template:
        first, last = con.table(f"{prefix}asked").pl().row(0)[-2:]
        notes.append(
            f"left out of run {run_id!r} are the {first} tokens that begin and the {last} that end"
            " all prompts."
        )
    if not has_gate_weights(asked.run):
        notes.append(
            f"run {run_id!r} has no gate weights, so the ranks of its choices mean nothing."
        )
    return notes


def draw_notes(measure: Measure, frame: pl.DataFrame, draws: int, seed: int) -> list[str]:
    """Sentences about the intervals of a measure and about values that were not tested.

    Args:
        measure: that was taken.
        frame: with its columns of chance and interval.
        draws: of each kind.
        seed: of all draws.
    """
    if not draws or not measure.values or frame.is_empty():
        return []
    notes = [f"intervals are from {draws:,} draws of requests (seed {seed}), {_kind(measure)}."]
    sure = [value for value in measure.values if value not in measure.jumps]
    alone = [pl.col(v).is_not_null() & pl.col(f"{v}_low").is_nan() for v in sure]
    if alone and (rows := frame.filter(pl.any_horizontal(alone)).height):
        notes.append(
            f"{rows:,} of {frame.height:,} rows have no interval: each of their domains has one"
            " request, or no draw has the row."
        )
    for value in measure.values if measure.null else ():
        p, chance = pl.col(f"{value}_p"), pl.col(f"{value}_chance")
        there = pl.col(value).is_not_null() & chance.is_not_nan()
        untested = frame.filter(there & p.is_nan()).height
        if untested:
            notes.append(
                f"{untested:,} of {frame.height:,} values of {value} are the same in every draw of"
                " chance, so they cannot be tested and have no probability."
            )
    return notes


def _kind(measure: Measure) -> str:
    corrected = [value for value in measure.values if value not in measure.jumps]
    if not corrected:
        return "plain percentiles"
    text = "their bias taken off, widened for few requests"
    return f"{text}; of {', '.join(measure.jumps)} plain percentiles" if measure.jumps else text
