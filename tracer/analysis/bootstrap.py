"""Bootstrap over requests: what the sums of a run might have been with other requests like these.

Tokens of a request share a prompt and a topic, so it is requests that are drawn anew, not tokens.
In each draw every request counts as often as a Poisson variable of mean 1 says, which is drawing
with replacement but for the total, and lets all layers and domains be summed on their own. A
request has the same weight in every layer: what is compared across layers moves together.

Source: Chamandy, Muralidharan, Najmi, Naidu (2012), Estimating uncertainty for massive data
streams, for the Poisson bootstrap; Efron (1979) for the bootstrap itself.
"""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import cast

import duckdb
import numpy as np
import numpy.typing as npt
import polars as pl

from tracer.analysis.sql import query_batches, run_query
from tracer.errors import InputError

__all__ = [
    "LayerDraws",
    "Usage",
    "UsageBootstrap",
    "bootstrap_usage",
    "percentile_interval",
    "poisson_weights",
]

_ROWS = 8192  # of `usage`, weighted at a time
_MOST = 20  # more times than a request counts in a draw: 32 bits end at 12
_CHUNK = 1 << 20  # weights drawn at a time


@dataclass(frozen=True, slots=True)
class Usage:
    """How often and how strongly experts were used.

    num_choices: float64 [..., domains, experts], tokens that chose the expert
    weight_sum: float64 [..., domains, experts], sum of their gate weights
    """

    num_choices: npt.NDArray[np.float64]
    weight_sum: npt.NDArray[np.float64]

    def eci(self, top_k: int) -> npt.NDArray[np.float64]:
        """Gate weight per token of the domain, [..., domains, experts]; NaN without a token.

        Source: COMMITTEEAUDIT (arXiv 2601.03425 v2) Eq. 2, restricted to the chosen experts.
        """
        tokens = self.num_choices.sum(axis=-1, keepdims=True) / top_k
        shares = np.full_like(self.weight_sum, np.nan)
        np.divide(self.weight_sum, tokens, out=shares, where=tokens > 0)
        return shares


@dataclass(frozen=True, slots=True)
class LayerDraws:
    """Usage of one layer. recorded: of the run, [domains, experts]; drawn: [draws, ...]."""

    layer_id: int
    recorded: Usage
    drawn: Usage


@dataclass(frozen=True, slots=True)
class UsageBootstrap:
    """Draws of a run's usage that are made as they are asked for.

    seed, draws: the same for the same run, scope and domains give the same weights
    domains: names, ascending; num_requests: int64 [domains], complete ones with tokens in the scope
    """

    run_id: str
    tokens: str
    seed: int
    draws: int
    domains: tuple[str, ...]
    num_requests: npt.NDArray[np.int64]
    num_experts: int
    top_k: int
    layer_ids: tuple[int, ...]
    _con: duckdb.DuckDBPyConnection
    _numbered: pl.DataFrame

    def layers(self) -> Iterator[LayerDraws]:
        """Draws of each MoE layer, ascending; the connection must be open.

        Sums of ``drawn`` are added in float32 for up to 8192 requests, then in float64: they are
        right to about six digits. ``recorded`` is exact.

        Memory, in bytes: draws x requests for the weights, 32 x draws x domains x experts for the
        sums of a layer and of the one before, 8192 x (8 x draws + 48 x experts) for the work.
        DuckDB sorts `usage` of one layer, on disk where its memory does not hold it.

        Raises:
            DamagedDataError: a file of the lake is missing or broken.
            QueryError: DuckDB refuses.
        """
        weights = poisson_weights(self._numbered.height, self.draws, self.seed)
        for layer_id in self.layer_ids:
            yield self._layer(layer_id, weights)

    def _layer(self, layer_id: int, weights: npt.NDArray[np.uint8]) -> LayerDraws:
        shape = (len(self.domains), 2, self.num_experts)
        recorded, drawn = np.zeros(shape), np.zeros((self.draws, *shape))
        self._con.register("numbered", self._numbered.to_arrow())
        binds = {"run_id": self.run_id, "layer_id": layer_id, "tokens": self.tokens}
        for batch in query_batches(self._con, "bootstrap/usage", _ROWS, **binds):
            domain, request, used = _requests(batch, self.num_experts)
            counted = weights[request].T.astype(np.float32)
            narrow = used.astype(np.float32)
            bounds = np.flatnonzero(np.diff(domain, prepend=-1, append=-1))
            for first, last in pairwise(bounds):
                recorded[domain[first]] += used[first:last].sum(axis=0).reshape(shape[1:])
                total = counted[:, first:last] @ narrow[first:last]
                drawn[:, domain[first]] += total.reshape(-1, *shape[1:])
        return LayerDraws(layer_id, _usage(recorded), _usage(drawn))


def bootstrap_usage(
    con: duckdb.DuckDBPyConnection,
    run: Mapping[str, object],
    *,
    draws: int,
    seed: int,
    tokens: str,
    domains: Mapping[str, str] | None = None,
) -> UsageBootstrap:
    """Redraw the complete requests of a run and sum their `usage` by layer, domain and expert.

    A domain of few requests has intervals that are too narrow, one of a single request none: its
    share is the same in every draw that has it.

    Args:
        con: from ``connect``; the relation `numbered` is set on it.
        run: its row of `runs`.
        draws: how often; 1,000 for the ends of a 95 % interval, 200 for a standard error.
        seed: of the weights, 0 or more.
        tokens: `last-prompt`, `prompt`, `generated`, or `all`.
        domains: new domain by old domain or subject, as ``load_domains`` reads it.

    Raises:
        InputError: no draw, or a negative seed.
        DamagedDataError: a file of the lake is missing or broken.
        QueryError: DuckDB refuses.
    """
    if draws < 1 or seed < 0:
        raise InputError(
            f"{draws} draws with seed {seed} cannot be made", "give 1 draw or more, a seed from 0."
        )
    run_id = str(run["run_id"])
    labels = json.dumps(dict(domains or {}))
    numbered = run_query(con, "bootstrap/requests", run_id=run_id, tokens=tokens, domains=labels)
    return UsageBootstrap(
        run_id=run_id,
        tokens=tokens,
        seed=seed,
        draws=draws,
        domains=tuple(numbered["domain"].unique().sort()),
        num_requests=np.bincount(numbered["domain_number"].to_numpy()),
        num_experts=cast("int", run["num_experts"]),
        top_k=cast("int", run["top_k"]),
        layer_ids=tuple(sorted(cast("list[int]", run["moe_layers"]))),
        _con=con,
        _numbered=numbered.select("request_id", "request_number", "domain_number"),
    )


def poisson_weights(num_requests: int, draws: int, seed: int) -> npt.NDArray[np.uint8]:
    """How often each request counts in each draw: uint8 [requests, draws], Poisson of mean 1.

    By inversion of 32 random bits each, from the raw stream of PCG64, which NumPy keeps as it is
    where it may change its distributions: a seed gives the same weights wherever it is used.
    """
    chances = np.array([math.exp(-1) / math.factorial(count) for count in range(_MOST)])
    ends = np.floor(np.cumsum(chances) * 2**32)
    # A number below the first of these counts 0 times, one below the second once, and so on.
    below = ends[ends < 2**32 - 1].astype(np.uint32)
    stream = np.random.PCG64(seed)
    weights = np.empty(num_requests * draws, dtype=np.uint8)
    for first in range(0, len(weights), _CHUNK):
        part = weights[first : first + _CHUNK]
        raw = stream.random_raw(-(-len(part) // 2)).astype("<u8").view("<u4")
        part[:] = np.searchsorted(below, raw[: len(part)], side="right")
    return weights.reshape(num_requests, draws)


def percentile_interval(
    draws: npt.NDArray[np.float64], level: float
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """(low, high) between which the middle ``level`` of the draws lie, by linear interpolation.

    Args:
        draws: [draws, ...], of any measure; NaN where a draw has none, which is left out.
        level: share of the draws, such as 0.95.

    Returns:
        Two arrays [...] in the unit of ``draws``; NaN where no draw has a value.

    Raises:
        InputError: ``level`` is not between 0 and 1.

    Source: Efron and Tibshirani (1993), An Introduction to the Bootstrap, chapter 13.
    """
    if not 0 < level < 1:
        raise InputError(f"level {level:g} is not a share of draws", "give over 0, below 1.")
    ordered = np.sort(draws, axis=0)  # NaN last
    last = np.maximum(np.count_nonzero(~np.isnan(draws), axis=0) - 1, 0)

    def at(share: float) -> npt.NDArray[np.float64]:
        place = share * last
        under = np.floor(place).astype(np.int64)
        over = np.minimum(under + 1, last)
        low, high = (np.take_along_axis(ordered, i[None], axis=0)[0] for i in (under, over))
        between: npt.NDArray[np.float64] = low + (high - low) * (place - under)
        return between

    return at((1 - level) / 2), at((1 + level) / 2)


def _requests(
    batch: pl.DataFrame, num_experts: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """(domain, request, used [n, 2 * experts]: choices, then weights) of each request in a batch.

    Rows of a request are neighbours; one that the next batch goes on with is there again.
    """
    request = batch["request_number"].to_numpy()
    starts = np.diff(request, prepend=-1) != 0
    lengths = batch["expert_ids"].list.len().to_numpy()
    row = np.repeat(np.cumsum(starts) - 1, lengths)
    cell = row * num_experts + batch["expert_ids"].explode().to_numpy()
    size = int(starts.sum()), num_experts
    used = [
        np.bincount(cell, batch[name].explode().to_numpy(), size[0] * size[1]).reshape(size)
        for name in ("num_choices", "weight_sum")
    ]
    return batch["domain_number"].to_numpy()[starts], request[starts], np.hstack(used)


def _usage(sums: npt.NDArray[np.float64]) -> Usage:
    return Usage(sums[..., 0, :], sums[..., 1, :])
