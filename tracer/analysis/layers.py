"""Layer by layer: from contributions of experts in domains to committees and overlaps.

The steps in SQL are ``queries/audit/*.sql``; choosing the committee is ``committee.py``.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import duckdb
import numpy as np
import polars as pl

from tracer.analysis.committee import (
    candidates,
    equal_weight_density,
    expected_jaccard,
    gini,
    inferred_num_experts,
    influence_density,
    pareto,
    presence_threshold,
    reference_moments,
)
from tracer.analysis.sql import run_query
from tracer.records import CommitteeMember, Contribution, DomainOverlap, LayerAudit

__all__ = ["AuditedLayers", "Rules", "audit_layers"]


@dataclass(frozen=True, slots=True)
class Rules:
    """How contributions become committees.

    reference: as the authors' code: every list is filled to its full length with experts of
        contribution 0, values are rounded to 4 decimals, coverage divides by the mean over the
        domains present in the layer, and E is inferred from the largest id listed
    num_domains: n of every mean over domains
    num_experts: routed experts of the model
    rank_cutoff: k, how deep each domain's list goes
    min_presence: least share of domains that must list a candidate
    """

    reference: bool
    num_domains: int
    num_experts: int
    rank_cutoff: int
    min_presence: float


@dataclass(frozen=True, slots=True)
class AuditedLayers:
    """What ``audit_layers`` finds. num_experts: E of influence density."""

    num_experts: int
    layers: tuple[LayerAudit, ...]
    contributions: tuple[Contribution, ...]
    overlaps: tuple[DomainOverlap, ...]


def audit_layers(
    con: duckdb.DuckDBPyConnection, contributions: pl.DataFrame, rules: Rules
) -> AuditedLayers:
    """Committees of every layer that has a row, ascending.

    Args:
        con: any connection; the relations `contributions` and `ranks` are set on it.
        contributions: layer_id, domain, expert_id, contribution; one row per chosen expert.
        rules: how to count.
    """
    depth = rules.rank_cutoff
    con.register("contributions", contributions.to_arrow())
    num_fill = rules.num_experts if rules.reference else 0
    ranks = run_query(con, "audit/ranks", rank_cutoff=depth, num_fill=num_fill)
    if rules.reference:
        ranks = ranks.with_columns(_rounded(ranks["contribution"]))
    con.register("ranks", ranks.to_arrow())
    experts = run_query(con, "audit/experts", rank_cutoff=depth, num_domains=rules.num_domains)
    totals = run_query(con, "audit/layers", rank_cutoff=depth)
    overlaps = tuple(
        DomainOverlap(*row)
        for row in run_query(con, "audit/overlaps", rank_cutoff=depth).iter_rows()
    )
    num_experts = rules.num_experts
    if rules.reference:
        listed = experts.filter(pl.col("num_listed") > 0)
        num_experts = inferred_num_experts(max(listed["expert_id"].to_list()))
    jaccards: dict[int, list[float]] = {}
    for overlap in overlaps:
        jaccards.setdefault(overlap.layer_id, []).append(overlap.jaccard)
    layers = []
    for layer_id, num_lists, listed_sum in totals.iter_rows():
        lists = num_lists if rules.reference else rules.num_domains
        layers.append(
            _layer(
                layer_id,
                experts.filter(pl.col("layer_id") == layer_id),
                rules,
                total=listed_sum / lists,
                num_experts=num_experts,
                jaccards=jaccards.get(layer_id, []),
            )
        )
    return AuditedLayers(
        num_experts,
        tuple(layers),
        tuple(Contribution(*row) for row in ranks.iter_rows()),
        overlaps,
    )


def _rounded(values: pl.Series) -> pl.Series:
    """Values as the reference writes them: float32, then 4 decimals by Python's rounding."""
    narrow = values.to_numpy().astype(np.float32).tolist()
    return pl.Series(values.name, [round(value, 4) for value in narrow], dtype=pl.Float64)


def _layer(
    layer_id: int,
    experts: pl.DataFrame,
    rules: Rules,
    *,
    total: float,
    num_experts: int,
    jaccards: Sequence[float],
) -> LayerAudit:
    """One layer. ``experts``: rows of audit/experts; ``total``: denominator of coverage."""
    rows = {row["expert_id"]: row for row in experts.iter_rows(named=True) if row["num_listed"]}
    threshold = presence_threshold(rules.num_domains, rules.min_presence)
    chosen, fallback_used = candidates(
        {expert: row["num_listed"] for expert, row in rows.items()}, threshold
    )
    points = {expert: _moments(rows[expert], rules) for expert in chosen}
    members = tuple(
        CommitteeMember(
            expert_id=expert,
            presence=rows[expert]["num_listed"] / rules.num_domains,
            rank_mean=points[expert][0],
            rank_var=points[expert][1],
            contribution_mean=rows[expert]["listed_mean"],
        )
        for expert in pareto(points)
    )
    size = len(members)
    coverage = sum(member.contribution_mean for member in members) / total if total > 0 else 0.0
    means = experts["listed_mean" if rules.reference else "contribution_mean"].to_list()
    return LayerAudit(
        layer_id=layer_id,
        committee=tuple(member.expert_id for member in members),
        members=members,
        rank_mean=sum(member.rank_mean for member in members) / size,
        rank_var=sum(member.rank_var for member in members) / size,
        coverage=coverage,
        coverage_equal_weight=size / rules.rank_cutoff,
        influence_density=influence_density(coverage, size, num_experts),
        influence_density_equal_weight=equal_weight_density(size, rules.rank_cutoff, num_experts),
        num_candidates=len(chosen),
        fallback_used=fallback_used,
        jaccard_mean=math.fsum(jaccards) / len(jaccards) if jaccards else math.nan,
        jaccard_random=expected_jaccard(rules.rank_cutoff, rules.num_experts),
        gini=gini(means, rules.num_experts),
    )


def _moments(row: Mapping[str, Any], rules: Rules) -> tuple[float, float]:
    """Rank mean and variance: exact, or in `reference` mode with the reference's own rounding."""
    if rules.reference:
        return reference_moments(row["listed_ranks"], rules.num_domains, rules.rank_cutoff)
    return row["rank_mean"], row["rank_var"]
