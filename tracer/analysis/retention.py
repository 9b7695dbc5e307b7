"""Retention: how much of a committee is left where tokens have another number of experts.

Source: COMMITTEEAUDIT (arXiv 2601.03425 v2), section 4.3 and Figure 5: |C_k' and C_k| / |C_k|,
averaged over layers. The paper does not say whether the model ran with k' experts or the lists were
cut at k'. Here both are done to a recorded run: each token keeps its k' best experts, and lists go
k' deep. The hidden states stay those of the run, so a model that runs with k' may differ.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import duckdb
import polars as pl

from tracer.analysis.audit import audit
from tracer.analysis.layers import Rules, audit_layers
from tracer.analysis.request_usage import request_layers
from tracer.analysis.sql import connect, run_query
from tracer.analysis.views import LakeFiles
from tracer.errors import InputError
from tracer.records import Audit

__all__ = ["LayerRetention", "Retention", "retention"]


@dataclass(frozen=True, slots=True)
class LayerRetention:
    """One layer. retained: share of the reference committee that is in ``committee``."""

    layer_id: int
    committee: tuple[int, ...]
    retained: float


@dataclass(frozen=True, slots=True)
class Retention:
    """A budget k'.

    source: `choices` (recorded gate weights, k' <= k) or `candidates` (scores beyond them)
    retained: mean over layers
    retained_random: what committees of these sizes, chosen at random, would retain: mean of |C|/E
    """

    budget: int
    source: str
    retained: float
    retained_random: float
    layers: tuple[LayerRetention, ...]


def retention(
    lake: LakeFiles,
    *,
    run_id: str | None = None,
    budgets: Sequence[int] | None = None,
    tokens: str = "prompt",
    min_presence: float = 0.8,
    domains: Mapping[str, str] | None = None,
    allow_missing_tokens: bool = False,
) -> list[Retention]:
    """Committees of other budgets beside that of the run's own top-k, in gate mode.

    Args:
        lake: the lake to read.
        run_id: the run; None takes the only one.
        budgets: each from 1; by default 1 to k, and on to the number of recorded candidates.
        tokens: `last-prompt`, `prompt`, `generated`, or `all`.
        min_presence: least share of domains that must list a candidate.
        domains: new domain by old domain or subject.
        allow_missing_tokens: as of ``audit``.

    Raises:
        InputError: as ``audit``, or a budget beyond what was recorded.
    """
    reference = audit(
        lake,
        run_id=run_id,
        tokens=tokens,
        min_presence=min_presence,
        domains=domains,
        allow_missing_tokens=allow_missing_tokens,
    )
    run = lake.run(run_id)
    con = connect(lake, reference.run_id)
    try:
        deepest = _num_candidates(con, run)
        if budgets is None:
            budgets = range(1, max(reference.top_k, deepest) + 1)
        _check(budgets, reference, deepest)
        counted = [domain.domain for domain in reference.domains]
        request_layers(con, run, tokens=tokens, domains=domains or {}, counted=counted).put()
        renormalise = bool(run.get("renormalised"))
        return [_of_budget(con, reference, budget, renormalise=renormalise) for budget in budgets]
    finally:
        con.close()


def _num_candidates(con: duckdb.DuckDBPyConnection, run: Mapping[str, object]) -> int:
    """Candidates of each token whose scores may stand for gate weights; 0 without any."""
    if run.get("scoring_function") != "softmax":
        return 0
    found = run_query(con, "audit/num_candidates", run_id=run["run_id"]).item()
    return cast("int", found or 0)


def _check(budgets: Sequence[int], reference: Audit, deepest: int) -> None:
    most = max(reference.top_k, deepest)
    for budget in budgets:
        if not 1 <= budget <= most:
            raise InputError(
                f"budget {budget} is not one of 1 to {most}, what run {reference.run_id!r}"
                " recorded",
                "`tracer capture --top-m` records candidates beyond top-k; the scores of a softmax"
                " router can stand for gate weights, others cannot.",
            )


def _of_budget(
    con: duckdb.DuckDBPyConnection, reference: Audit, budget: int, *, renormalise: bool
) -> Retention:
    source = "choices" if budget <= reference.top_k else "candidates"
    found = run_query(
        con,
        f"audit/budget_{source}",
        run_id=reference.run_id,
        tokens=reference.tokens,
        budget=budget,
        renormalise=renormalise,
    )
    rules = Rules(
        reference=False,
        num_domains=reference.num_domains,
        num_experts=reference.num_experts,
        rank_cutoff=budget,
        min_presence=reference.min_presence,
    )
    # Domain numbers stand for names: both are only told apart.
    lists = found.rename({"domain_number": "domain"}).select(
        "layer_id", pl.col("domain").cast(pl.String), "expert_id", "contribution"
    )
    own = {layer.layer_id: layer.committee for layer in audit_layers(con, lists, rules).layers}
    layers = tuple(
        LayerRetention(
            layer.layer_id,
            own[layer.layer_id],
            len({*layer.committee} & {*own[layer.layer_id]}) / len(layer.committee),
        )
        for layer in reference.layers
    )
    sizes = [len(layer.committee) / reference.num_experts for layer in layers]
    return Retention(
        budget=budget,
        source=source,
        retained=sum(layer.retained for layer in layers) / len(layers),
        retained_random=sum(sizes) / len(layers),
        layers=layers,
    )
