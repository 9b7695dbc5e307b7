"""Numbers and findings as words a reader without the code understands.

References (equal weights, random sets) are named beside each number and never called chance;
nothing here says that an expert causes anything.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from statistics import fmean, median

from tracer.records import Audit, LayerAudit

__all__ = [
    "MODES",
    "SCOPES",
    "count",
    "fixed",
    "label",
    "not_counted",
    "percent",
    "plural",
    "ranges",
    "run_facts",
    "sort_key",
    "summary",
]

MODES = {
    "gate": "mean gate weight per token, zeros included",
    "reference": "the authors' code: min-max normalised gate weight times selection frequency",
}
SCOPES = {
    "last-prompt": "the last prompt token of each request",
    "prompt": "every prompt token",
    "generated": "every generated token",
    "all": "every prompt and generated token",
}
_FACTS = (
    ("model", "Model"),
    ("model_revision", "Model revision"),
    ("architecture", "Architecture"),
    ("engine", "Engine"),
    ("dtype", "Compute dtype"),
    ("num_experts", "Routed experts per layer (E)"),
    ("num_shared_experts", "Shared experts (always run, not traced)"),
    ("top_k", "Experts chosen per token (top-k)"),
    ("moe_layers", "MoE layers"),
    ("scoring_function", "Router scores"),
    ("renormalised", "Chosen weights rescaled to sum to 1"),
    ("routed_scaling_factor", "Routed scaling factor"),
    ("weight_convention", "Weight convention"),
    ("weight_precision", "Weight precision"),
    ("dataset", "Dataset"),
    ("requests", "Requests"),
    ("prefix_caching", "Prefix caching"),
    ("started_at", "Started"),
    ("status", "Status"),
)
_MEANINGS = {
    ("weight_convention", "scaled"): "scaled: gate weights contain the routed scaling factor",
    ("weight_convention", "unscaled"): "unscaled: the routed scaling factor is not in them",
    ("weight_precision", "bf16"): "bf16: float32 rounded to bfloat16 precision",
    ("weight_precision", "f32"): "f32: as the router returned them",
}


def fixed(value: float | None, digits: int) -> str:
    """``digits`` decimals; ∞ where infinite, n/a where not defined."""
    if value is None or math.isnan(value):
        return "n/a"
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    return f"{value:.{digits}f}"


def percent(value: float | None) -> str:
    """A share, 0 to 1, as per cent with one decimal."""
    text = fixed(None if value is None else 100 * value, 1)
    return text if text == "n/a" else f"{text}\N{NO-BREAK SPACE}%"


def count(value: int) -> str:
    """An integer with thousands separators."""
    return f"{value:,}"


def plural(number: int, noun: str) -> str:
    """'1 layer', '2 layers'."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def sort_key(value: float) -> str:
    """A number as JavaScript reads it; empty where not defined."""
    if math.isnan(value):
        return ""
    return repr(value) if math.isfinite(value) else ("Infinity" if value > 0 else "-Infinity")


def ranges(numbers: Iterable[int]) -> str:
    """Ascending integers, runs of three or more joined: '0-3, 5, 6'."""
    runs: list[list[int]] = []
    for number in sorted(set(numbers)):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    joined = (
        [f"{run[0]}\N{EN DASH}{run[-1]}"] if len(run) > 2 else map(str, run)  # noqa: PLR2004
        for run in runs
    )
    return ", ".join(part for parts in joined for part in parts)


def label(audit: Audit) -> str:
    """Short name of an audit among several of one run."""
    return f"{audit.mode} / {audit.tokens}"


def not_counted(requests_by_status: Mapping[str, int]) -> str:
    """Requests that are not complete: '1 aborted, 2 skipped'; empty where there are none."""
    return ", ".join(
        f"{number:,} {status}"
        for status, number in sorted(requests_by_status.items())
        if status != "complete"
    )


def run_facts(audit: Audit, run: Mapping[str, object]) -> list[tuple[str, str]]:
    """(name, value) pairs for the table of facts; what nobody recorded is left out."""
    known: dict[str, object] = {
        "model": audit.model,
        "num_experts": audit.num_experts,
        "top_k": audit.top_k,
        "moe_layers": [layer.layer_id for layer in audit.layers],
        "requests": f"{audit.requests_by_status.get('complete', 0):,} complete",
    }
    if others := not_counted(audit.requests_by_status):
        known["requests"] = f"{known['requests']}; not counted: {others}"
    known.update({key: value for key, value in run.items() if value is not None})
    known["engine"] = " ".join(str(run[k]) for k in ("engine", "engine_version") if run.get(k))
    return [
        (name, text) for key, name in _FACTS if key in known and (text := _fact(key, known[key]))
    ]


def summary(audit: Audit) -> str:
    """What the audit found, as one plain paragraph."""
    layers = sorted(audit.layers, key=lambda layer: layer.layer_id)
    if not layers:
        return "The audit holds no layers, so there is nothing to describe."
    with_committee = [layer for layer in layers if layer.committee]
    sentences = (
        _found(audit, layers, with_committee),
        _sizes(with_committee),
        _fallback(layers),
        _coverage(with_committee),
        _overlap(audit, layers),
    )
    return " ".join(filter(None, sentences))


def _found(audit: Audit, layers: Sequence[LayerAudit], holding: Sequence[LayerAudit]) -> str:
    less = ""
    if audit.num_missing_prompt_tokens:
        less = (
            f", save {audit.num_missing_prompt_tokens:,} of {audit.num_prompt_tokens:,} prompt"
            f" tokens ({percent(audit.missing_prompt_share)}), which the prefix cache answered"
        )
    lead = (
        f"{plural(len(layers), 'MoE layer')} {_were(len(layers))} audited over"
        f" {plural(audit.num_domains, 'domain')}, counting"
        f" {SCOPES.get(audit.tokens, audit.tokens)}{less}."
    )
    if not holding:
        return f"{lead} No layer has a standing committee."
    where = (
        "Each of them has"
        if len(holding) == len(layers) > 1
        else f"{plural(len(holding), 'layer')} {'has' if len(holding) == 1 else 'have'}"
    )
    return (
        f"{lead} {where} a standing committee: those of its"
        f" {audit.num_experts} experts that are among the {audit.rank_cutoff} largest"
        f" contributors in at least {audit.presence_threshold} of {audit.num_domains} domains,"
        " and that no other such expert beats on both average rank and steadiness of rank."
    )


def _sizes(layers: Sequence[LayerAudit]) -> str:
    by_size: dict[int, list[int]] = defaultdict(list)
    for layer in layers:
        by_size[len(layer.committee)].append(layer.layer_id)
    parts = [
        f"{plural(size, 'member')} in layer{'s' if len(ids) > 1 else ''} {ranges(ids)}"
        for size, ids in sorted(by_size.items())
    ]
    return f"Sizes: {'; '.join(parts)}." if parts else ""


def _fallback(layers: Sequence[LayerAudit]) -> str:
    ids = [layer.layer_id for layer in layers if layer.fallback_used]
    if not ids:
        return ""
    return (
        f"In layer{'s' if len(ids) > 1 else ''} {ranges(ids)}, though, no expert met that"
        " threshold, so the experts present in the most domains were taken instead (fallback)."
    )


def _coverage(layers: Sequence[LayerAudit]) -> str:
    known = [layer for layer in layers if math.isfinite(layer.coverage)]
    if not known:
        return ""
    held = _spread([layer.coverage for layer in known])
    equal = _spread([layer.coverage_equal_weight for layer in known])
    return (
        f"Committees hold {held} of the contribution listed in their layer; if every listed"
        f" expert weighed the same, committees of these sizes would hold {equal}."
    )


def _overlap(audit: Audit, layers: Sequence[LayerAudit]) -> str:
    means = [layer.jaccard_mean for layer in layers if math.isfinite(layer.jaccard_mean)]
    if not means:
        return "Overlap between domains is not defined here, as there are not two to compare."
    random = [x for layer in layers if math.isfinite(x := layer.jaccard_random)]
    expected = (
        f"; two random sets of {audit.rank_cutoff} out of {audit.num_experts} experts have"
        f" {fixed(fmean(random), 3)} in expectation"
        if random
        else ""
    )
    return (
        f"The top-{audit.rank_cutoff} lists of two domains have a mean Jaccard index of"
        f" {fixed(fmean(means), 3)} over layers ({fixed(min(means), 3)} to"
        f" {fixed(max(means), 3)}){expected}."
    )


def _spread(shares: Sequence[float]) -> str:
    """'42.0 %' or 'a median 42.0 % (30.0 % to 61.0 %)'."""
    middle = percent(median(shares))
    if percent(min(shares)) == percent(max(shares)):
        return middle
    return f"a median {middle} ({percent(min(shares))} to {percent(max(shares))})"


def _were(number: int) -> str:
    return "was" if number == 1 else "were"


def _fact(key: str, value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return value.isoformat(sep=" ", timespec="seconds")
    if isinstance(value, list | tuple) and all(isinstance(number, int) for number in value):
        return ranges(value)
    text = str(value)
    return _MEANINGS.get((key, text), text)
