"""Random draws of what two runs recorded: which token meets which, and which run is which."""

import numpy as np
import polars as pl

from tracer.analysis.measures.inputs import OTHER
from tracer.analysis.measures.redraw import Redraw, Rng, with_replacement
from tracer.errors import InputError

__all__ = ["exchanged_runs", "moved_tokens", "one_model"]

_OF_REQUESTS = (
    "scoped_requests",
    "usage_entries",
    "routing_entries",
    "logit_entries",
    "token_entries",
)
_PLACE = ["origin", "phase", "position"]


def moved_tokens(redraw: Redraw, rng: Rng) -> None:
    """Tokens of the second run change places among those that are compared."""
    name = f"{OTHER}routing_entries"
    entries = redraw.recorded(name)
    places = _compared(redraw)
    moved = places[rng.permutation(places.height)].rename(lambda column: f"new_{column}")
    redraw.put(
        name,
        entries.join(places.hstack(moved), on=_PLACE, how="left", maintain_order="left")
        .with_columns(pl.coalesce(f"new_{column}", column).alias(column) for column in _PLACE)
        .select(entries.columns),
    )


def _compared(redraw: Redraw) -> pl.DataFrame:
    """Places of the second run that the first has too, up to where their requests differ."""
    one, two = redraw.recorded("routing_entries"), redraw.recorded(f"{OTHER}routing_entries")
    key = ["origin", "position"]
    places = two.select(_PLACE).unique().join(one.select(key).unique(), on=key, how="semi")
    if redraw.has("token_entries"):
        mine, theirs = redraw.recorded("token_entries"), redraw.recorded(f"{OTHER}token_entries")
        both = mine.join(theirs, on=key, suffix="_two").sort(key)
        first, second = pl.col("token_id"), pl.col("token_id_two")
        same = (first == second) | (first < 0) | (second < 0)
        both = both.filter(same.cum_min().over("origin"))
        places = places.join(both, on=key, how="semi")
    return places.sort(_PLACE)


def exchanged_runs(redraw: Redraw, rng: Rng) -> None:
    """Requests exchange their runs."""
    one, two = redraw.recorded("scoped_requests"), redraw.recorded(f"{OTHER}scoped_requests")
    shared = one.join(two, on="origin", how="semi", maintain_order="left")["origin"]
    tossed = shared.filter(pl.Series(rng.integers(0, 2, len(shared)) == 1))
    alone = pl.concat(
        mine.join(theirs, on="origin", how="anti").select("domain", "origin", run=pl.lit(run))
        for run, (mine, theirs) in enumerate(((one, two), (two, one)))
    ).sort("domain", "origin")
    order = np.lexsort((rng.random(alone.height), alone["domain"].rank("dense").to_numpy()))
    dealt = alone.filter(alone["run"] != alone["run"][order])["origin"]
    if (
        shared.is_empty()
        and alone.group_by("domain").agg(pl.col("run").n_unique())["run"].max() == 1
    ):
        raise InputError(
            "the two runs share neither requests nor domains, so chance has nothing to exchange",
            "--domains gives them common ones; --draws 0 leaves chance out.",
        )
    moves = pl.col("origin").is_in(pl.concat([tossed, dealt]).implode())
    for name in _OF_REQUESTS:
        if not redraw.has(name) or not redraw.has(f"{OTHER}{name}"):
            continue
        first, second = redraw.recorded(name), redraw.recorded(f"{OTHER}{name}")
        redraw.put(name, pl.concat([first.filter(~moves), second.filter(moves)]))
        redraw.put(f"{OTHER}{name}", pl.concat([second.filter(~moves), first.filter(moves)]))


def one_model(redraw: Redraw, rng: Rng) -> None:
    """Two samples of the first run's requests, drawn on their own, stand for the two runs.

    The second has as many requests of each domain as the second run, since fewer requests lie
    farther apart.
    """
    requests, other = (redraw.recorded(f"{prefix}scoped_requests") for prefix in ("", OTHER))
    sizes = dict(other["domain"].value_counts().iter_rows())
    if not sizes.keys() & set(requests["domain"]):
        raise InputError(
            "the two runs have no domain in common, so chance has nothing to draw from",
            "--domains gives them common ones; --draws 0 leaves chance out.",
        )
    redraw.put("scoped_requests", with_replacement(requests, rng))
    redraw.put(f"{OTHER}scoped_requests", with_replacement(requests, rng, sizes))
    for name in ("asked", *_OF_REQUESTS[1:]):
        if redraw.has(name) and redraw.has(f"{OTHER}{name}"):
            redraw.put(f"{OTHER}{name}", redraw.recorded(name))
