"""An audit as text: a table for people, CSV and JSON for programs. No SQL, no lake."""

import csv
import io
import json
import math
from collections.abc import Iterable, Sequence
from typing import Any

from tracer.records import Audit, LayerAudit
from tracer.report.chance_text import (
    REFERENCE_NOTE,
    chance_columns,
    chance_lines,
    chance_object,
    chance_of,
    chance_rows,
)
from tracer.report.words import not_counted

__all__ = ["render_csv", "render_json", "render_table"]

_REFERENCE_HEADER = ("Layer", "Committee", "Size", "Avg_mu", "Avg_sigma_sq", "Coverage", "Ratio")
_MOST_IDS = 8
_LONGEST_NAME = 48
_TABLE_HEADER = (
    ("layer", ""),
    ("committee", "by mean rank"),
    ("size", "|C|"),
    ("rank", "mean"),
    ("rank", "var"),
    ("coverage", "of listed"),
    ("equal-weight", "reference"),
    ("influence", "density"),
    ("equal-weight", "reference"),
    ("Jaccard", "mean"),
    ("Jaccard", "random"),
    ("Gini", ""),
)


def render_table(audit: Audit) -> str:
    """What was asked, the domains, then one line per layer; as wide as its longest line.

    Where draws were made, one more line per layer, and verdicts.
    """
    experts = f"{audit.num_experts} experts"
    if audit.num_experts_inferred is not None:
        experts += f" ({audit.num_experts_inferred} inferred, used in influence density)"
    threshold = f"{audit.presence_threshold} of {audit.num_domains} domains"
    unfinished = ""
    if audit.run_status != "complete":
        unfinished = f" ({_plain(audit.run_status)}: not every request is recorded yet)"
    head = [
        f"run {_plain(audit.run_id)}, model {_plain(audit.model)}{unfinished}",
        f"mode {audit.mode}, tokens {audit.tokens}",
        f"n = {audit.num_domains} domains, k = {audit.rank_cutoff} (rank cutoff), E = {experts}",
        f"candidates: in the list of at least {threshold} (min presence {audit.min_presence:g})",
    ]
    if audit.template_tokens is not None:
        first, last = audit.template_tokens
        head.append(f"left out: the {first} tokens that begin, the {last} that end all prompts")
    if others := not_counted(audit.requests_by_status):
        head.append(f"requests that do not count: {_plain(others)}")
    if audit.num_missing_prompt_tokens:
        head.append(
            f"{audit.num_missing_prompt_tokens:,} of {audit.num_prompt_tokens:,} prompt tokens"
            f" ({100 * audit.missing_prompt_share:.1f} %) have no rows: answered from the prefix"
            " cache"
        )
    layers = [_table_row(layer) for layer in audit.layers]
    notes = [
        "equal-weight reference: |C|/k and (E-|C|)/(k-|C|), what coverage and influence density",
        "would be if all listed weights were equal; no chance level.",
    ]
    if any(layer.fallback_used for layer in audit.layers):
        notes.append("* fallback: no expert passed, those listed in most domains are candidates.")
    if audit.mode == "reference":
        notes.append(REFERENCE_NOTE)
    blocks = [
        head,
        _aligned(_domain_rows(audit), left=(0,)),
        _aligned([*zip(*_TABLE_HEADER, strict=True), *layers], left=(1,)),
        notes,
    ]
    if audit.chance:
        blocks.append(_aligned(chance_rows(audit.chance, audit.layers), left=()))
        blocks.append(chance_lines(audit.chance))
    return "\n\n".join("\n".join(block) for block in blocks) + "\n"


def _domain_rows(audit: Audit) -> list[tuple[str, ...]]:
    """Domains under their column names; one more column where tokens are missing."""
    rows = [("domain", "requests", "tokens", "missing")]
    rows += [
        (
            _plain(domain.domain),
            f"{domain.num_requests:,}",
            f"{domain.num_tokens:,}",
            f"{domain.num_missing_prompt_tokens:,}",
        )
        for domain in audit.domains
    ]
    if audit.num_unlabelled:
        rows.append(("(no domain, left out)", f"{audit.num_unlabelled:,}", "", ""))
    return [row if audit.num_missing_prompt_tokens else row[:-1] for row in rows]


def render_csv(audit: Audit) -> str:
    """CSV with one row per layer.

    In `reference` mode it is the file the authors' script writes: its header and rounding, and
    layers renumbered by -1 where the smallest is 1. In gate mode columns are named as in the
    glossary, numbers are exact, and what is undefined is empty; ``missing_prompt_share``, of the
    whole audit, stands in every row. Where draws were made, columns of intervals, chance levels and
    verdicts follow.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    if audit.mode == "reference":
        shift = min((layer.layer_id for layer in audit.layers), default=0) == 1
        writer.writerow(_REFERENCE_HEADER)
        writer.writerows(_reference_row(layer, layer.layer_id - shift) for layer in audit.layers)
    else:
        share = audit.missing_prompt_share
        rows = [{**_numbers(layer), "missing_prompt_share": share} for layer in audit.layers]
        for row, layer in zip(rows, audit.layers, strict=True):
            if chance := chance_of(audit, layer.layer_id):
                row.update(chance_columns(chance))
        writer.writerow(rows[0] if rows else ())
        writer.writerows([_cell(value) for value in row.values()] for row in rows)
    return text.getvalue()


def render_json(audit: Audit) -> str:
    """JSON list with one object per layer; strict, so what is infinite or undefined is null.

    `influence_density` is null where the members hold all listed contribution, its equal-weight
    reference where |C| >= k, `jaccard_mean` with a single domain. `intervals` is null where no
    draws were made; else `chance`, `membership`, `task_specificity` and verdicts stand beside it.
    """
    asked = {
        "run_id": audit.run_id,
        "run_status": audit.run_status,
        "mode": audit.mode,
        "tokens": audit.tokens,
        "num_domains": audit.num_domains,
        "num_unlabelled": audit.num_unlabelled,
        "template_tokens": audit.template_tokens,
        "requests_by_status": dict(audit.requests_by_status),
        "num_prompt_tokens": audit.num_prompt_tokens,
        "num_missing_prompt_tokens": audit.num_missing_prompt_tokens,
        "missing_prompt_share": audit.missing_prompt_share,
        "rank_cutoff": audit.rank_cutoff,
        "num_experts": audit.num_experts,
        "num_experts_inferred": audit.num_experts_inferred,
        "top_k": audit.top_k,
        "min_presence": audit.min_presence,
        "presence_threshold": audit.presence_threshold,
    }
    layers: list[dict[str, Any]] = [
        asked
        | {name: _finite(value) for name, value in _numbers(layer).items()}
        | {
            "committee": list(layer.committee),
            "members": [
                {
                    "expert_id": member.expert_id,
                    "presence": member.presence,
                    "rank_mean": member.rank_mean,
                    "rank_var": member.rank_var,
                    "contribution_mean": member.contribution_mean,
                }
                for member in layer.members
            ],
            "intervals": None,
        }
        for layer in audit.layers
    ]
    for row in layers:
        if audit.chance and (chance := chance_of(audit, row["layer_id"])):
            row.update(_all_finite(chance_object(audit.chance, chance)))
        if audit.mode == "reference":
            row["intervals_left_out"] = REFERENCE_NOTE
    return json.dumps(layers, indent=2, allow_nan=False) + "\n"


def _numbers(layer: LayerAudit) -> dict[str, str | float]:
    """A layer's results by glossary name; members apart."""
    return {
        "layer_id": layer.layer_id,
        "committee": ", ".join(map(str, layer.committee)),
        "committee_size": len(layer.committee),
        "rank_mean": layer.rank_mean,
        "rank_var": layer.rank_var,
        "coverage": layer.coverage,
        "coverage_equal_weight": layer.coverage_equal_weight,
        "coverage_lift": layer.coverage / layer.coverage_equal_weight,
        "influence_density": layer.influence_density,
        "influence_density_equal_weight": layer.influence_density_equal_weight,
        "num_candidates": layer.num_candidates,
        "fallback_used": layer.fallback_used,
        "jaccard_mean": layer.jaccard_mean,
        "jaccard_random": layer.jaccard_random,
        "gini": layer.gini,
    }


def _reference_row(layer: LayerAudit, layer_id: int) -> tuple[object, ...]:
    return (
        layer_id,
        ", ".join(map(str, layer.committee)),
        len(layer.committee),
        round(layer.rank_mean, 2),
        round(layer.rank_var, 2),
        round(layer.coverage, 4),
        round(layer.influence_density, 2),
    )


def _table_row(layer: LayerAudit) -> tuple[str, ...]:
    ids = [str(expert) for expert in layer.committee]
    more = f" +{len(ids) - _MOST_IDS}" if len(ids) > _MOST_IDS else ""
    return (
        str(layer.layer_id),
        " ".join(ids[:_MOST_IDS]) + more + ("*" if layer.fallback_used else ""),
        str(len(ids)),
        _fixed(layer.rank_mean, 2),
        _fixed(layer.rank_var, 2),
        _fixed(layer.coverage, 3),
        _fixed(layer.coverage_equal_weight, 3),
        _fixed(layer.influence_density, 2),
        _fixed(layer.influence_density_equal_weight, 2),
        _fixed(layer.jaccard_mean, 3),
        _fixed(layer.jaccard_random, 3),
        _fixed(layer.gini, 3),
    )


def _aligned(rows: Iterable[Sequence[str]], left: Sequence[int]) -> list[str]:
    """Rows as lines of equal columns two spaces apart; columns in ``left`` start on the left."""
    table = list(rows)
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if column in left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in table
    ]


def _fixed(value: float, decimals: int) -> str:
    return "-" if math.isnan(value) else f"{value:.{decimals}f}"


def _finite(value: str | float) -> str | float | None:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _all_finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _all_finite(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_all_finite(part) for part in value]
    return _finite(value)


def _cell(value: str | float) -> str | float:
    """A CSV cell: undefined is empty, truth is lower case; infinity prints as inf."""
    if isinstance(value, bool):
        return str(value).lower()
    return "" if isinstance(value, float) and math.isnan(value) else value


def _plain(text: str) -> str:
    """A name that cannot disturb a terminal: one line, no control characters, not too long."""
    safe = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
    return safe if len(safe) <= _LONGEST_NAME else safe[: _LONGEST_NAME - 3] + "..."
