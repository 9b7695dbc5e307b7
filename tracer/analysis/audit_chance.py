"""An audit beside chance: intervals, chance levels and verdicts from draws of its layers."""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from tracer.analysis.bootstrap import percentile_interval, poisson_weights
from tracer.analysis.intervals import corrected_interval, widening
from tracer.analysis.layer_draws import (
    BOUNDS,
    INVERSE,
    SAME_TOKEN,
    STATISTICS,
    DrawnLayer,
    Key,
    draw_layer,
    label_draws,
    row_means,
)
from tracer.analysis.layer_tests import adjusted_probability, probability
from tracer.analysis.layers import Rules
from tracer.analysis.request_usage import RequestLayers, RequestUsage
from tracer.analysis.verdicts import (
    AGREEMENT,
    ALPHA,
    DIFFERENCES,
    agreement_verdict,
    can_say_agreement,
    can_say_differences,
    differences_verdict,
)
from tracer.records import (
    AuditChance,
    DomainSpecificity,
    LayerAudit,
    LayerChance,
    StatisticChance,
)

__all__ = ["audit_chance"]

Floats = npt.NDArray[np.float64]

LEVEL = 0.95


def audit_chance(
    requests: RequestLayers,
    layers: Sequence[LayerAudit],
    rules: Rules,
    *,
    draws: int,
    seed: int,
    usage_of: Callable[[int], RequestUsage] | None = None,
    same_token: bool = False,
    progress: Callable[[str], None] = lambda _name: None,
) -> AuditChance:
    """Intervals, chance levels and verdicts of an audit.

    Memory beside the usage of one layer: 3 bytes for every draw and request, and work in parts.

    Args:
        requests: those that count.
        layers: what the audit found.
        rules: of the audit, not the reference's.
        draws: how many of each kind; 1,000 for the ends of a 95 % interval.
        seed: of all draws.
        usage_of: usage by layer where it is not the recorded gate weights.
        same_token: also compares domains by what their tokens got beside their like.
        progress: told each layer that is done.
    """
    count = len(requests.domain)
    labels = label_draws(requests.domain, draws, seed)
    weights = poisson_weights(count, draws, seed)
    found = []
    for place, layer in enumerate(layers):
        rng = np.random.default_rng([seed, 0, layer.layer_id])
        usage = (usage_of or requests.layer)(layer.layer_id)
        found.append(
            draw_layer(
                usage,
                rules,
                rng,
                labels=labels,
                weights=weights,
                same_token=requests.same_token_layer(layer.layer_id) if same_token else None,
            )
        )
        progress(f"layer {layer.layer_id} ({place + 1} of {len(layers)})")
    return _told(requests, layers, rules, found, draws=draws, seed=seed)


def _told(
    requests: RequestLayers,
    layers: Sequence[LayerAudit],
    rules: Rules,
    found: Sequence[DrawnLayer],
    *,
    draws: int,
    seed: int,
) -> AuditChance:
    compared = any(SAME_TOKEN[0] in layer.recorded for layer in found)
    keys = (*STATISTICS, SAME_TOKEN) if compared else STATISTICS
    sizes = requests.num_requests
    widened = widening(LEVEL, [sizes.sum()], [(sizes > 0).sum()])
    by_key = {key: _statistic(key, found, widened) for key in keys}
    of_domains = _specificity(requests, found)
    told = []
    for place, (layer, drawn) in enumerate(zip(layers, found, strict=True)):
        there = sizes[drawn.with_rows].tolist()
        agree = can_say_agreement(there, draws, rules.num_experts, rules.rank_cutoff)
        differ = can_say_differences(there, draws)
        told.append(
            LayerChance(
                layer_id=layer.layer_id,
                statistics=tuple(by_key[key][place] for key in keys),
                membership=_membership(layer, drawn.membership),
                specificity=of_domains[place],
                agreement=agreement_verdict(by_key[AGREEMENT][place].p_adjusted, possible=agree),
                differences=differences_verdict(
                    by_key[DIFFERENCES][place].p_adjusted, possible=differ
                ),
                same_token=differences_verdict(
                    by_key[SAME_TOKEN][place].p_adjusted, possible=differ
                )
                if compared
                else None,
            )
        )
    return AuditChance(
        draws=draws,
        seed=seed,
        level=LEVEL,
        alpha=ALPHA,
        layers=tuple(told),
        agreement=_of_run([layer.agreement for layer in told], agreement_verdict),
        differences=_of_run([layer.differences for layer in told], differences_verdict),
        same_token=_of_run([layer.same_token for layer in told], differences_verdict)
        if compared
        else None,
    )


def _of_run(verdicts: Sequence[str | None], verdict: Callable[..., str]) -> str:
    """The run's: found where it is in any layer, else chance where any layer could say."""
    every = [verdict(0.0, possible=True), verdict(1.0, possible=True)]
    return next((text for text in every if text in verdicts), verdict(1.0, possible=False))


def _statistic(
    key: Key, found: Sequence[DrawnLayer], widened: Floats
) -> tuple[StatisticChance, ...]:
    """One statistic in all layers."""
    name, null, _ = key
    observed = np.array([layer.recorded[name] for layer in found])
    chance = np.array([layer.chance[name, null] for layer in found]).T
    again = np.array([layer.again[name] for layer in found]).T
    return _rows(key, observed, chance, again, widened)


def _specificity(
    requests: RequestLayers, found: Sequence[DrawnLayer]
) -> list[tuple[DomainSpecificity, ...]]:
    key = ("task_specificity", "labels", "greater")
    if not found:
        return []
    drawn = np.concatenate([layer.specificity for layer in found], axis=1)
    again = np.concatenate([layer.specificity_again for layer in found], axis=1)
    sizes, width = requests.num_requests.tolist(), len(requests.domains)
    widened = np.tile(widening(LEVEL, sizes, np.ones(width)), len(found))
    rows = _rows(key, drawn[0], drawn[1:], again, widened)
    return [
        tuple(
            DomainSpecificity(domain, size, row)
            for domain, size, row in zip(
                requests.domains, sizes, rows[first : first + width], strict=True
            )
        )
        for first in range(0, len(rows), width)
    ]


def _rows(
    key: Key, observed: Floats, chance: Floats, again: Floats, widened: Floats
) -> tuple[StatisticChance, ...]:
    name, _, side = key
    if name in BOUNDS:
        low, high = corrected_interval(observed, again, LEVEL, widened=widened, bounds=BOUNDS[name])
    else:
        low, high = percentile_interval(again, LEVEL)
    chance_low, chance_high = percentile_interval(chance, LEVEL)
    columns = [
        observed,
        low,
        high,
        row_means(chance.T),
        chance_low,
        chance_high,
    ]
    if name == INVERSE:
        with np.errstate(divide="ignore"):
            estimate, high, low, mean, chance_high, chance_low = (1 / x for x in columns)
        columns = [estimate, low, high, mean, chance_low, chance_high]
    columns += [probability(observed, chance, side), adjusted_probability(observed, chance, side)]
    return tuple(
        StatisticChance(*key, *map(float, values)) for values in zip(*columns, strict=True)
    )


def _membership(layer: LayerAudit, share: Floats) -> tuple[tuple[int, float], ...]:
    others = np.flatnonzero(share > 0)
    others = others[np.lexsort((others, -share[others]))].tolist()
    order = [*layer.committee, *(expert for expert in others if expert not in layer.committee)]
    return tuple((expert, float(share[expert])) for expert in order)
