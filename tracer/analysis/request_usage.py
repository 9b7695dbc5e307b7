"""Usage of every request of a run, layer by layer, as arrays that requests are drawn from."""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import cast

import duckdb
import numpy as np
import numpy.typing as npt
import polars as pl

from tracer.analysis.same_token import SameTokenUsage, same_token_usage
from tracer.analysis.sql import query_batches, run_query
from tracer.errors import InputError

__all__ = ["RequestLayers", "RequestUsage", "domain_contributions", "request_layers"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_ROWS = 8192  # of a query, summed at a time
_CELLS = 1 << 23  # of the matrix that says which request counts where, at a time


@dataclass(frozen=True, slots=True)
class RequestUsage:
    """One layer. Requests without a row in it have zeros.

    num_tokens: float64 [requests], tokens of the scope
    num_choices: float32 [requests, experts], tokens that chose the expert; whole numbers
    weight_sum: float64 [requests, experts], sum of their gate weights
    """

    num_tokens: Floats
    num_choices: npt.NDArray[np.float32]
    weight_sum: Floats


@dataclass(frozen=True, slots=True)
class RequestLayers:
    """Requests that count, and their usage as it is asked for.

    domains: names, ascending; domain: int64 [requests], place of each request's own
    """

    run_id: str
    tokens: str
    domains: tuple[str, ...]
    domain: Ints
    num_experts: int
    top_k: int
    _con: duckdb.DuckDBPyConnection
    _numbered: pl.DataFrame

    @property
    def num_requests(self) -> Ints:
        """Requests of each domain: int64 [domains]."""
        return np.bincount(self.domain, minlength=len(self.domains))

    def put(self) -> None:
        """Set the relation `numbered`: request_id, request_number, domain_number."""
        self._con.register("numbered", self._numbered.to_arrow())

    def layer(self, layer_id: int) -> RequestUsage:
        """Usage in one layer; 12 bytes for every request and expert, and as much for a moment.

        Raises:
            DamagedDataError: a file of the lake is missing or broken.
        """
        shape = len(self.domain), self.num_experts
        choices = np.zeros(shape[0] * shape[1], dtype=np.float32)
        weights = np.zeros(shape[0] * shape[1])
        self.put()
        binds = {"run_id": self.run_id, "layer_id": layer_id, "tokens": self.tokens}
        for batch in query_batches(self._con, "audit/usage", _ROWS, **binds):
            lengths = batch["expert_ids"].list.len().to_numpy()
            request = np.repeat(batch["request_number"].to_numpy(), lengths)
            cell = request * self.num_experts + batch["expert_ids"].explode().to_numpy()
            np.add.at(choices, cell, batch["num_choices"].explode().to_numpy().astype(np.float32))
            np.add.at(weights, cell, batch["weight_sum"].explode().to_numpy())
        num_choices = choices.reshape(shape)
        num_tokens = num_choices.sum(axis=1, dtype=np.float64) / self.top_k
        return RequestUsage(num_tokens, num_choices, weights.reshape(shape))

    def softmax_layer(self, layer_id: int) -> RequestUsage:
        """As ``layer``, of the softmax over all experts instead of gate weights (Eq. 3).

        Every expert counts as chosen by every token. Needs router logits.

        Raises:
            DamagedDataError: a file of the lake is missing or broken.
        """
        weights = np.zeros((len(self.domain), self.num_experts))
        num_tokens = np.zeros(len(self.domain))
        self.put()
        binds = {"run_id": self.run_id, "layer_id": layer_id, "tokens": self.tokens}
        for batch in query_batches(self._con, "audit/softmax", _ROWS, **binds):
            request = batch["request_number"].to_numpy()
            weights[request, batch["expert_id"].to_numpy()] = batch["weight_sum"].to_numpy()
            num_tokens[request] = batch["num_tokens"].to_numpy()
        chosen = np.repeat(num_tokens[:, None], self.num_experts, axis=1)
        return RequestUsage(num_tokens, chosen.astype(np.float32), weights)

    def same_token_layer(self, layer_id: int) -> SameTokenUsage:
        """What the tokens of each request got beside their like, from `routing`.

        Holds all choices of the layer in the scope: 16 bytes each, and as much for a moment.

        Raises:
            InputError: the run does not know its token ids.
            DamagedDataError: a file of the lake is missing or broken.
        """
        self.put()
        binds = {"run_id": self.run_id, "layer_id": layer_id, "tokens": self.tokens}
        found = run_query(self._con, "audit/token_choices", **binds)
        token_id = found["token_id"].to_numpy().astype(np.int64)
        if (token_id < 0).any():
            raise InputError(
                f"run {self.run_id!r} has no token ids, so no token can be compared with its like",
                "import it again with them, or leave out the same-token control.",
            )
        shape = found.height, self.top_k
        return same_token_usage(
            found["request_number"].to_numpy(),
            token_id,
            found["expert_ids"].explode().to_numpy().astype(np.int64).reshape(shape),
            found["gate_weights"].explode().to_numpy().astype(np.float64).reshape(shape),
            domain=self.domain,
            num_experts=self.num_experts,
        )


def request_layers(
    con: duckdb.DuckDBPyConnection,
    run: Mapping[str, object],
    *,
    tokens: str,
    domains: Mapping[str, str],
    counted: Collection[str],
) -> RequestLayers:
    """Complete requests of a run that have recorded tokens in a scope.

    Args:
        con: from ``connect``; the relation `numbered` is set on it.
        run: its row of `runs`.
        tokens: `last-prompt`, `prompt`, `generated`, or `all`.
        domains: new domain by old domain or subject.
        counted: the domains whose requests count.
    """
    run_id = str(run["run_id"])
    labels = json.dumps(dict(domains))
    found = run_query(con, "audit/requests", run_id=run_id, tokens=tokens, domains=labels)
    found = found.filter(pl.col("domain").is_in(list(counted)))
    names = sorted(counted)
    place = {name: number for number, name in enumerate(names)}
    number = [place[name] for name in found["domain"]]
    numbered = found.select(
        "request_id",
        pl.Series("request_number", np.arange(found.height), dtype=pl.Int64),
        pl.Series("domain_number", number, dtype=pl.Int64),
    )
    return RequestLayers(
        run_id=run_id,
        tokens=tokens,
        domains=tuple(names),
        domain=numbered["domain_number"].to_numpy(),
        num_experts=cast("int", run["num_experts"]),
        top_k=cast("int", run["top_k"]),
        _con=con,
        _numbered=numbered,
    )


def domain_contributions(
    usage: RequestUsage,
    labels: npt.NDArray[np.integer],
    num_domains: int,
    weights: npt.NDArray[np.uint8] | None = None,
) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """ECI of each domain where requests have other domains or count several times.

    Args:
        usage: of one layer.
        labels: domain of each request, [draws, requests]; of one draw for the same in all.
        num_domains: how many there are.
        weights: how often each request counts, [requests, draws]; None counts each once.

    Returns:
        Contributions float64 [draws, domains, experts], NaN where no token of the domain chose
        the expert; which domains have a request, bool [draws, domains].

    Source: COMMITTEEAUDIT (arXiv 2601.03425 v2) Eq. 2, restricted to the chosen experts.
    """
    if weights is not None and len(labels) == 1:
        return _redrawn(usage, labels[0], num_domains, weights)
    num_requests, num_experts = usage.weight_sum.shape
    num_draws = len(labels) if weights is None else weights.shape[1]
    contributions = np.empty((num_draws, num_domains, num_experts))
    present = np.empty((num_draws, num_domains), dtype=bool)
    size = max(1, _CELLS // max(1, num_requests * num_domains))
    numbers = np.arange(num_domains)[:, None]
    for first in range(0, num_draws, size):
        part = slice(first, min(first + size, num_draws))
        counted = (labels[part, None] == numbers) * 1.0
        if weights is not None:
            counted = counted * weights.T[part, None]
        contributions[part] = _contributions(usage, counted)
        present[part] = counted.any(axis=2)
    return contributions, present


def _redrawn(
    usage: RequestUsage,
    labels: npt.NDArray[np.integer],
    num_domains: int,
    weights: npt.NDArray[np.uint8],
) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Where domains stay, only the requests of each are to be summed for it."""
    num_draws = weights.shape[1]
    contributions = np.empty((num_draws, num_domains, usage.weight_sum.shape[1]))
    present = np.empty((num_draws, num_domains), dtype=bool)
    for number in range(num_domains):
        mine = np.flatnonzero(labels == number)
        used = RequestUsage(usage.num_tokens[mine], usage.num_choices[mine], usage.weight_sum[mine])
        size = max(1, _CELLS // max(1, len(mine)))
        for first in range(0, num_draws, size):
            part = slice(first, min(first + size, num_draws))
            counted = weights[mine, part].T.astype(np.float64)
            contributions[part, number] = _contributions(used, counted)
            present[part, number] = counted.any(axis=1)
    return contributions, present


def _contributions(usage: RequestUsage, counted: Floats) -> Floats:
    """``counted``: how often each request counts, [..., requests]."""
    tokens = counted @ usage.num_tokens
    chosen = counted.astype(np.float32) @ usage.num_choices > 0
    shares = np.full(chosen.shape, np.nan)
    np.divide(counted @ usage.weight_sum, tokens[..., None], out=shares, where=chosen)
    return shares
