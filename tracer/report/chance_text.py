"""An audit beside chance as text: blocks of the table, columns of the CSV, objects of the JSON."""

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from tracer.records import Audit, AuditChance, LayerAudit, LayerChance, StatisticChance

__all__ = [
    "REFERENCE_NOTE",
    "chance_columns",
    "chance_lines",
    "chance_object",
    "chance_of",
    "chance_rows",
]

REFERENCE_NOTE = (
    "no intervals, chance levels, verdicts or task specificity: mode reference repeats numbers of"
    " the authors' code, which has none; mode gate has them."
)
# Statistics that LayerAudit has no number of, so that their estimate is told too.
_OWN = ("presence_top", "eci_distance", "task_specificity", "same_token_distance")
_NUMBERS = ("chance", "chance_low", "chance_high", "p", "p_adjusted")
_HEADER = (
    ("layer", ""),
    ("ECI", "distance"),
    ("interval", ""),
    ("ids", "exchanged"),
    ("p", "agree"),
    ("domains", "exchanged"),
    ("p", "differ"),
    ("Jaccard", "interval"),
    ("ids", "exchanged"),
    ("lift of", "coverage"),
    ("ids", "exchanged"),
    ("task spec.", "mean"),
    ("domains", "exchanged"),
    ("members", "in draws"),
)


def chance_rows(chance: AuditChance, layers: Sequence[LayerAudit]) -> list[tuple[str, ...]]:
    """Header and one row per layer, to be aligned."""
    sizes = {layer.layer_id: len(layer.committee) for layer in layers}
    rows = [_row(layer, sizes[layer.layer_id]) for layer in chance.layers]
    return [*zip(*_HEADER, strict=True), *rows]


def chance_lines(chance: AuditChance) -> list[str]:
    """What the rows mean, and the verdicts."""
    middle = f"{100 * chance.level:g} %"
    lines = [
        f"{chance.draws:,} draws of each kind, seed {chance.seed}; p: one-sided, over all layers.",
        f"interval: {middle}, from requests drawn anew; members: in how many of those draws.",
        f"exchanged: middle {middle} by chance, of expert ids in each domain, or of domains over",
        "requests.",
        f"agreement: {_verdict(chance, 'agreement')}",
        f"differences: {_verdict(chance, 'differences')}",
    ]
    if chance.same_token:
        lines.append(f"the same tokens compared: {_verdict(chance, 'same_token')}")
    return lines


def chance_columns(layer: LayerChance) -> dict[str, str | float]:
    """CSV columns of a layer; where a statistic has two nulls, `labels` stands in the second."""
    columns: dict[str, str | float] = {}
    for statistic in layer.statistics:
        name = statistic.statistic
        if name in _OWN:
            columns[name] = statistic.estimate
        if f"{name}_low" not in columns:
            columns |= {f"{name}_low": statistic.low, f"{name}_high": statistic.high}
        if f"{name}_chance" in columns:
            name = f"{name}_{statistic.null}"
        columns |= {f"{name}_{number}": getattr(statistic, number) for number in _NUMBERS}
    columns |= {"agreement": layer.agreement, "differences": layer.differences}
    return columns | ({"same_token": layer.same_token} if layer.same_token else {})


def chance_object(chance: AuditChance, layer: LayerChance) -> dict[str, Any]:
    """Keys of a layer's JSON object; numbers may be infinite or undefined."""
    intervals = {s.statistic: [s.low, s.high] for s in layer.statistics}
    return {
        "intervals": intervals,
        "membership": [
            {"expert_id": expert, "share_of_draws": share} for expert, share in layer.membership
        ],
        "chance": [asdict(statistic) for statistic in layer.statistics],
        "task_specificity": [
            {
                "domain": domain.domain,
                "num_requests": domain.num_requests,
                **asdict(domain.specificity),
            }
            for domain in layer.specificity
        ],
        "agreement": layer.agreement,
        "differences": layer.differences,
        "run_agreement": chance.agreement,
        "run_differences": chance.differences,
        "same_token": layer.same_token,
        "run_same_token": chance.same_token,
        "draws": chance.draws,
        "seed": chance.seed,
        "level": chance.level,
        "alpha": chance.alpha,
    }


def _row(layer: LayerChance, committee_size: int) -> tuple[str, ...]:
    jaccard, lift = layer.of("jaccard_mean", "experts"), layer.of("coverage_lift", "experts")
    agree, differ = layer.of("eci_distance", "experts"), layer.of("eci_distance", "labels")
    alike = layer.of("task_specificity", "labels")
    shares = [share for _, share in layer.membership[:committee_size]]
    return (
        str(layer.layer_id),
        _fixed(agree.estimate),
        _between(agree.low, agree.high),
        _by_chance(agree),
        _fixed(agree.p_adjusted),
        _by_chance(differ),
        _fixed(differ.p_adjusted),
        _between(jaccard.low, jaccard.high),
        _by_chance(jaccard),
        _fixed(lift.estimate, 2),
        _between(lift.chance_low, lift.chance_high, 2),
        _fixed(alike.estimate),
        _by_chance(alike),
        f"{min(shares, default=0):.0%}-{max(shares, default=0):.0%}",
    )


def _by_chance(statistic: StatisticChance) -> str:
    return _between(statistic.chance_low, statistic.chance_high)


def _verdict(chance: AuditChance, kind: str) -> str:
    """The run's, and of how many layers it holds."""
    verdict: str = getattr(chance, kind)
    same = sum(getattr(layer, kind) == verdict for layer in chance.layers)
    return f"{verdict} ({same} of {len(chance.layers)} layers)"


def _between(low: float, high: float, decimals: int = 3) -> str:
    if math.isnan(low) or math.isnan(high):
        return "-"
    return f"{_fixed(low, decimals)} to {_fixed(high, decimals)}"


def _fixed(value: float, decimals: int = 3) -> str:
    return "-" if math.isnan(value) else f"{value:.{decimals}f}"


def chance_of(audit: Audit, layer_id: int) -> LayerChance | None:
    """A layer's numbers beside chance, where draws were made."""
    layers = audit.chance.layers if audit.chance else ()
    return next((layer for layer in layers if layer.layer_id == layer_id), None)
