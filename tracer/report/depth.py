"""Audit -> charts over depth: each number of the audit by layer, beside its reference.

Every point is one layer; nothing is averaged over layers, and no expert id is followed from one
layer to the next.
"""

import math
from collections.abc import Sequence

from tracer.records import Audit, LayerAudit
from tracer.report.beside_chance import chance_charts, with_chance
from tracer.report.chart import Chart, Dot, Series, finite
from tracer.report.contributions import ContributionTable

__all__ = ["depth_charts", "truncated_ginis"]

_EQUAL = "equal weights (reference, not chance)"


def depth_charts(audit: Audit, table: ContributionTable) -> list[Chart]:
    """All charts of one audit, in the order the page shows them."""
    layers = sorted(audit.layers, key=lambda layer: layer.layer_id)
    ids = tuple(layer.layer_id for layer in layers)
    gini = _gini(layers, ids, audit, table)
    return [
        _members(audit, layers, ids),
        with_chance(audit, _sizes(layers, ids), "committee_size"),
        with_chance(audit, _coverage(layers, ids), "coverage"),
        with_chance(audit, _lift(layers, ids), "coverage_lift"),
        with_chance(audit, _density(layers, ids), "influence_density"),
        with_chance(audit, _rank_var(layers, ids), "rank_var"),
        with_chance(audit, _jaccard(layers, ids, audit), "jaccard_mean"),
        gini if audit.mode == "reference" else with_chance(audit, gini, "gini"),
        *chance_charts(audit),
    ]


def truncated_ginis(audit: Audit, table: ContributionTable) -> list[float | None]:
    """Gini per layer with what stands outside a domain's list counted as zero.

    The mean over domains of the listed contributions, over all E experts; None where nothing is
    listed.
    """
    found: list[float | None] = []
    for index in range(len(table.layer_ids)):
        sums = [0.0] * table.num_columns
        for values, listed in zip(table.by_domain, table.listed, strict=True):
            for expert_id, _ in listed[index]:
                sums[expert_id] += values[index * table.num_columns + expert_id]
        found.append(_gini_of(sums[: max(audit.num_experts, 1)]))
    return found


def _gini_of(values: Sequence[float]) -> float | None:
    size, total = len(values), math.fsum(values)
    if not total > 0:
        return None
    weighted = math.fsum(
        (2 * place - size - 1) * value for place, value in enumerate(sorted(values), start=1)
    )
    return weighted / (size * total)


def _members(audit: Audit, layers: Sequence[LayerAudit], ids: tuple[int, ...]) -> Chart:
    dots = tuple(
        Dot(
            layer.layer_id,
            member.rank_mean,
            f"Layer {layer.layer_id}, expert {member.expert_id}: mean rank"
            f" {member.rank_mean:.2f}, in the lists of {100 * member.presence:.0f} % of domains",
        )
        for layer in layers
        for member in layer.members
    )
    return Chart(
        "member-ranks",
        "Mean rank of every committee member",
        "mean rank over domains",
        ids,
        dots=dots,
        digits=2,
        floor=1,
        ceiling=audit.rank_cutoff + 1,
        downward=True,
        note="Rank 1, on top, is the largest contributor of a domain; k + 1 stands for experts"
        " outside a domain's list. Each dot is one expert of one layer.",
    )


def _sizes(layers: Sequence[LayerAudit], ids: tuple[int, ...]) -> Chart:
    return Chart(
        "committee-size",
        "Committee size and candidates",
        "experts",
        ids,
        (
            Series("members", tuple(float(len(layer.committee)) for layer in layers)),
            Series("candidates", tuple(float(layer.num_candidates) for layer in layers), "second"),
        ),
        digits=0,
        floor=0,
    )


def _coverage(layers: Sequence[LayerAudit], ids: tuple[int, ...]) -> Chart:
    return Chart(
        "coverage",
        "Coverage of the committee",
        "share of listed contribution",
        ids,
        (
            Series(_EQUAL, tuple(finite(x.coverage_equal_weight) for x in layers), "reference"),
            Series("coverage", tuple(finite(layer.coverage) for layer in layers)),
        ),
        share=True,
        floor=0,
        ceiling=1,
        note="Coverage grows with the size of the committee; |C|/k is what it would be if all"
        " listed experts weighed the same.",
    )


def _lift(layers: Sequence[LayerAudit], ids: tuple[int, ...]) -> Chart:
    lifts = tuple(
        finite(layer.coverage / layer.coverage_equal_weight)
        if layer.coverage_equal_weight
        else None
        for layer in layers
    )
    return Chart(
        "coverage-lift",
        "Coverage lift: coverage over its equal-weight reference",
        "times the reference",
        ids,
        (
            Series(_EQUAL, tuple(1.0 for _ in ids), "reference"),
            Series("coverage lift", lifts),
        ),
        digits=2,
        floor=0,
        note="What is left of coverage when the size of the committee is divided out.",
    )


def _density(layers: Sequence[LayerAudit], ids: tuple[int, ...]) -> Chart:
    reference = tuple(finite(layer.influence_density_equal_weight) for layer in layers)
    return Chart(
        "influence-density",
        "Influence density",
        "member over non-member",
        ids,
        (
            Series(_EQUAL, reference, "reference"),
            Series("influence density", tuple(finite(layer.influence_density) for layer in layers)),
        ),
        digits=2,
        floor=0,
        note="Mean contribution of a member over that of a non-member. A gap is a layer whose"
        " members hold everything that is listed.",
    )


def _rank_var(layers: Sequence[LayerAudit], ids: tuple[int, ...]) -> Chart:
    return Chart(
        "rank-variance",
        "Rank variance of the members",
        "mean variance over domains",
        ids,
        (Series("rank variance", tuple(finite(layer.rank_var) for layer in layers)),),
        digits=2,
        floor=0,
    )


def _jaccard(layers: Sequence[LayerAudit], ids: tuple[int, ...], audit: Audit) -> Chart:
    sets = f"two random sets of {audit.rank_cutoff} of {audit.num_experts} (expected)"
    return Chart(
        "jaccard-depth",
        "Jaccard index of the domains' lists, mean over pairs",
        "Jaccard index",
        ids,
        (
            Series(sets, tuple(finite(layer.jaccard_random) for layer in layers), "reference"),
            Series("mean over pairs", tuple(finite(layer.jaccard_mean) for layer in layers)),
        ),
        floor=0,
        ceiling=1,
    )


def _gini(
    layers: Sequence[LayerAudit], ids: tuple[int, ...], audit: Audit, table: ContributionTable
) -> Chart:
    own = tuple(finite(layer.gini) for layer in layers)
    cut = tuple(truncated_ginis(audit, table))
    series = [Series("truncated to the lists", cut, "second")]
    if audit.mode != "reference":
        series = [Series("all chosen experts", own), *series]
    if audit.num_experts:
        floor = 1 - audit.rank_cutoff / audit.num_experts
        equal = Series(
            "1 \N{MINUS SIGN} k/E: k equal experts, zeros elsewhere", (floor,) * len(ids)
        )
        series.insert(0, Series(equal.name, equal.values, "reference"))
    return Chart(
        "gini",
        "Gini coefficient of the contributions",
        "Gini",
        ids,
        tuple(series),
        floor=0,
        ceiling=1,
        note="Truncated to the lists, every expert outside a domain's list counts as zero, so at"
        " least 1 \N{MINUS SIGN} k/E is built in where all domains list the same experts.",
    )
