"""The relations that measures read, made of a run on a DuckDB connection.

Their texts are ``queries/inputs/*.sql``. A second run has them once more, each name with
``other_`` before it.
"""

import json
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import cast

import duckdb
import numpy as np
import polars as pl

from tracer.analysis.measures.nearest import nearest_requests
from tracer.analysis.measures.pairs import expert_pairs
from tracer.analysis.sql import query_text
from tracer.errors import InputError
from tracer.records import GATE_WEIGHTS, TOKEN_SCOPES, UNKNOWN
from tracer.schema import TABLES, query_path

__all__ = [
    "OTHER",
    "Asked",
    "count_again",
    "frame_of",
    "has_gate_weights",
    "make_inputs",
    "needed",
    "one_row",
    "renamed",
    "replace",
    "tables_of",
]

OTHER = "other_"
_REQUESTS = "scoped_requests"
_SORTED = ("run_id", "origin", "phase", "layer_id", "position", "budget", "expert_id")
# Base tables that a run has only where it was asked to record them, and what asks for them.
_OPTIONS = {
    "router_logits": "--router-logits",
    "routers": "--router-weights",
    "candidates": "--top-m",
}
# Relations that are counted in arrays instead of by their texts.
_COUNTED = {"expert_pairs": expert_pairs, "nearest_requests": nearest_requests}


@dataclass(frozen=True, slots=True)
class Asked:
    """Which tokens of which run a measure is about.

    run: its row of `runs`
    tokens: one of ``TOKEN_SCOPES``
    domains: new domain by old domain or subject
    exclude_template: leaves out the tokens that begin and end all prompts
    requests: most requests to take, a random choice where there are more, of a second run first
        those taken of the first; None takes all
    seed: of that choice
    """

    run: Mapping[str, object]
    tokens: str
    domains: Mapping[str, str]
    exclude_template: bool = False
    requests: int | None = None
    seed: int = 0


def needed(reads: Iterable[str], prefix: str = "") -> list[str]:
    """Relations of one run that are to be made, in order, without ``prefix``."""
    wanted: list[str] = []

    def add(name: str) -> None:
        if name in wanted or name not in _input_names():
            return
        for other in _reads(name):
            add(other)
        wanted.append(name)

    for name in reads:
        if name.startswith(OTHER) == bool(prefix):
            add(name.removeprefix(prefix))
    return wanted


def make_inputs(
    con: duckdb.DuckDBPyConnection,
    reads: Collection[str],
    asked: Asked,
    *,
    prefix: str = "",
    keep: bool = False,
) -> None:
    """Make the relations that ``reads`` names, and those that they need.

    Args:
        con: from ``connect``.
        reads: of a measure; of a second run those that begin with ``OTHER``.
        asked: the run and its tokens.
        prefix: "" or ``OTHER``.
        keep: holds what is read from the lake in memory, for draws; else relations are views.

    Raises:
        InputError: an unknown scope, no requests in it, or something the run did not record.
    """
    if asked.tokens not in TOKEN_SCOPES:
        raise InputError(
            f"unknown tokens {asked.tokens!r}", f"there are: {', '.join(TOKEN_SCOPES)}."
        )
    read = set(reads)
    names = needed(reads, prefix)
    run_id = str(asked.run["run_id"])
    _refuse_unrecorded(con, names, asked.run)
    row = {name: asked.run[name] for name in ("run_id", "num_experts", "top_k", "moe_layers")}
    row["renormalised"] = bool(asked.run.get("renormalised"))
    row |= {"tokens": asked.tokens, "template_prefix": 0, "template_suffix": 0}
    replace(con, f"{prefix}asked", pl.DataFrame([row]))
    if asked.exclude_template and "usage_entries" in names:
        names.insert(names.index("usage_entries"), "routing_entries")
    for name in dict.fromkeys([_REQUESTS, *names]):
        instead = asked.exclude_template and name == "usage_entries"
        text = renamed(query_text("scope/usage_of_rows" if instead else f"inputs/{name}"), prefix)
        if name == _REQUESTS:
            found = con.sql(text, params={"domains": json.dumps(dict(asked.domains))}).pl()
            if found.is_empty():
                raise InputError(
                    f"run {run_id!r} has no complete requests with tokens of {asked.tokens!r}",
                    "choose others with --tokens.",
                )
            first = con.table(_REQUESTS).pl()["origin"] if prefix else found["origin"][:0]
            replace(con, f"{prefix}{name}", _some(found, asked, first))
            if asked.exclude_template:
                lengths = one_row(con, "template_lengths", prefix)
                row |= dict(zip(("template_prefix", "template_suffix"), lengths, strict=True))
                replace(con, f"{prefix}asked", pl.DataFrame([row]))
        elif name in _COUNTED:
            replace(con, f"{prefix}{name}", _COUNTED[name](con, prefix))
        elif keep and name.endswith("_entries") and (prefix + name in read or _drawn(name, names)):
            con.execute(f"create or replace temp table {prefix}{name} as\n{text}")
        else:
            con.execute(f"create or replace temp view {prefix}{name} as\n{text}")


def _drawn(name: str, names: Iterable[str]) -> bool:
    """Whether draws of a relation are seen: others than sums, which are held too, read it."""
    return any(name in _reads(other) for other in names if not other.endswith("_entries"))


def count_again(con: duckdb.DuckDBPyConnection, made: Collection[str]) -> None:
    """Count what is counted in arrays anew, after other relations were put in their places.

    Args:
        con: with the relations.
        made: names of all tables on it.
    """
    for prefix in ("", OTHER):
        for name, count in _COUNTED.items():
            if f"{prefix}{name}" in made:
                replace(con, f"{prefix}{name}", count(con, prefix))


def one_row(con: duckdb.DuckDBPyConnection, name: str, prefix: str = "") -> tuple[int, ...]:
    """What ``queries/scope/<name>.sql`` yields, which is one row, of a run's relations."""
    row: tuple[int, ...] = con.sql(renamed(query_text(f"scope/{name}"), prefix)).fetchall()[0]
    return row


def tables_of(reads: Iterable[str]) -> list[str]:
    """Tables of the lake behind the relations of a measure, but for those of `scoped_requests`."""
    every = [needed([name], OTHER if name.startswith(OTHER) else "") for name in reads]
    names = {name for names in every for name in names} - {_REQUESTS}
    return [table for table in TABLES if any(table in _reads(name) for name in names)]


def replace(con: duckdb.DuckDBPyConnection, name: str, frame: pl.DataFrame) -> None:
    """Make ``frame`` the temporary table ``name``."""
    con.register("drawn", frame.to_arrow())
    con.execute(f"create or replace temp table {name} as from drawn")
    con.unregister("drawn")


def frame_of(con: duckdb.DuckDBPyConnection, name: str) -> pl.DataFrame:
    """A relation as a frame, in an order that does not depend on how it was read."""
    frame: pl.DataFrame = con.sql(f"from {name}").pl()
    return frame.sort([column for column in _SORTED if column in frame.columns])


def _refuse_unrecorded(
    con: duckdb.DuckDBPyConnection, names: list[str], run: Mapping[str, object]
) -> None:
    run_id = run["run_id"]
    tables = {table for name in names for table in _reads(name)}
    for table, option in _OPTIONS.items():
        if table not in tables:
            continue
        query = f"select 1 from {table} where run_id = $run_id limit 1"  # noqa: S608
        if not con.execute(query, {"run_id": run_id}).fetchall():
            raise InputError(
                f"run {run_id!r} has no {table}", f"record them: `tracer capture {option}`."
            )
    plain = run.get("scoring_function") == "softmax" and not run.get("selection_bias")
    if "candidates" in tables and not plain:
        raise InputError(
            f"run {run_id!r} has candidates whose scores cannot stand for gate weights",
            "those of a softmax router without a selection bias can.",
        )


def _some(requests: pl.DataFrame, asked: Asked, first: pl.Series) -> pl.DataFrame:
    """At most ``asked.requests``: those of ``first``, then others by chance."""
    if asked.requests is None or requests.height <= asked.requests:
        return requests
    order = np.random.default_rng(asked.seed).permutation(requests.height)
    again = requests["origin"].is_in(first.implode()).to_numpy()
    chosen = order[np.argsort(~again[order], kind="stable")][: asked.requests]
    return requests[np.sort(chosen)]


@cache
def _input_names() -> frozenset[str]:
    return frozenset(path.stem for path in query_path("inputs/any").parent.glob("*.sql"))


@cache
def _reads(name: str) -> tuple[str, ...]:
    header = query_text(f"inputs/{name}")
    line = next(row for row in header.splitlines() if row.startswith("-- reads"))
    return tuple(part.strip() for part in line.removeprefix("-- reads").split(","))


def renamed(text: str, prefix: str) -> str:
    """The text with ``prefix`` before the names of all relations that are made here."""
    if not prefix:
        return text
    names = "|".join(sorted({*_input_names(), "asked"}, key=len, reverse=True))
    return re.sub(rf"\b({names})\b", rf"{prefix}\1", text)


def has_gate_weights(run: Mapping[str, object]) -> bool:
    """Whether the run's source had gate weights."""
    options = json.loads(str(run.get("options") or "{}"))
    return cast("str", options.get(GATE_WEIGHTS, "")) != UNKNOWN
