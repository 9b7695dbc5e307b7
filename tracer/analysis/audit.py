"""The committee audit of a run: which experts are relied on in almost every domain.

Answers from the sums in `usage_by_domain`; from those in `usage` where domains are renamed, a
request does not count, or the run goes on: only `requests` says what is recorded, and a crash may
leave sums of requests it does not name. `routing` is not read.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import cast

import duckdb
import polars as pl

from tracer.analysis.audit_chance import audit_chance
from tracer.analysis.audit_options import (
    LAST_PROMPT,
    check_draws,
    check_template,
    has_weights,
    token_scope,
)
from tracer.analysis.committee import presence_threshold
from tracer.analysis.layers import Rules, audit_layers
from tracer.analysis.request_usage import request_layers
from tracer.analysis.sql import connect, run_query
from tracer.analysis.template import leave_out_template
from tracer.analysis.views import LakeFiles
from tracer.errors import DamagedDataError, InputError
from tracer.records import (
    NO_DOMAIN,
    Audit,
    AuditDomain,
)

__all__ = ["MissingTokensError", "audit"]

_PROMPT_SCOPES = ("prompt", "all")
# Statuses of requests that count, or that have nothing in the sums per domain.
_WHOLE_IN_SUMS = {"complete", "skipped", "uncaptured"}
_SCOPE_WORDS = {
    LAST_PROMPT: "recorded last prompt tokens",
    "prompt": "recorded prompt tokens",
    "generated": "generated tokens",
    "all": "recorded tokens",
}


class MissingTokensError(InputError):
    """The scope takes in prompt tokens that have no routing rows."""


def audit(
    lake: LakeFiles,
    *,
    run_id: str | None = None,
    mode: str = "gate",
    tokens: str | None = None,
    min_presence: float = 0.8,
    rank_cutoff: int | None = None,
    domains: Mapping[str, str] | None = None,
    allow_missing_tokens: bool = False,
    draws: int = 0,
    seed: int = 0,
    same_token: bool = False,
    exclude_template: bool = False,
    progress: Callable[[str], None] = lambda _name: None,
) -> Audit:
    """Standing committee of every MoE layer of a run (COMMITTEEAUDIT Eq. 8 to 14).

    Only complete requests count. A domain without a token in the scope is left out of n, and
    requests without a domain are left out where others have one.
    Contributions hold every chosen expert, in `reference` mode also listed ones nobody chose. A
    member's ``contribution_mean`` sums its listed contributions over all n domains, so the members'
    sum over the listed total is coverage. ``jaccard_random`` and ``gini`` count the run's experts
    in every mode.

    Prompt tokens that the engine answered from its prefix cache have no routing rows, so what many
    requests begin with counts less often than it occurs. The last prompt token and generated
    tokens always run.

    Args:
        lake: the lake to read.
        run_id: the run; None takes the only one.
        mode: `gate` ranks by mean gate weight (Eq. 2 on the chosen experts); `paper` by mean
            probability of the softmax over all experts (Eq. 2 and 3), which needs router logits;
            `reference` ranks and counts as the authors' code does.
        tokens: `last-prompt`, `prompt`, `generated`, or `all`; by default `prompt` in gate
            mode, `last-prompt` in the others. `reference` mode has no other.
        min_presence: least share of domains that must list a candidate, over 0 and at most 1.
        rank_cutoff: how deep each domain's list goes; by default the run's top_k.
        domains: new domain by old domain or subject, as ``load_domains`` reads it.
        allow_missing_tokens: audit the prompt tokens that have rows where others have none; the
            result says how many.
        draws: of each null, and as many of requests, for ``Audit.chance``; 0 makes none, and
            `reference` mode has none: what it repeats of the authors' code has no draws there.
        seed: of all draws, 0 or more.
        same_token: also compares domains by what their tokens got beside the same token ids
            elsewhere; reads `routing`, needs draws, token ids, and gate mode.
        exclude_template: leaves out the tokens that begin and end all prompts, as a chat template's
            do; reads `routing`, and needs gate mode without the same-token control.
        progress: told each layer whose draws are made.

    Raises:
        InputError: an option that cannot be used, nothing to audit, or a run without weights.
        MissingTokensError: prompt tokens of the scope have no rows, and that is not allowed.
        UnknownRunError: no such run.
        DamagedDataError: the run's tables contradict each other.
    """
    scope = token_scope(mode, tokens)
    if not 0 < min_presence <= 1:
        raise InputError(
            f"min presence {min_presence:g} is not a share of domains", "give over 0, at most 1."
        )
    check_draws(mode, draws, seed, same_token=same_token)
    check_template(mode, exclude_template=exclude_template, same_token=same_token)
    run = lake.run(run_id)
    name = str(run["run_id"])
    if mode != "paper" and not has_weights(run):
        raise InputError(
            f"run {name!r} has expert ids only: its source had no gate weights, which an audit is"
            " made of",
            "`tracer sql` counts how often experts were chosen, in `usage` and `choices`.",
        )
    num_experts, top_k = cast("int", run["num_experts"]), cast("int", run["top_k"])
    depth = top_k if rank_cutoff is None else rank_cutoff
    if not 1 <= depth <= num_experts:
        raise InputError(
            f"rank cutoff {depth} is not a number of experts",
            f"give 1 to {num_experts}; the default is the run's top_k, {top_k}.",
        )
    con = connect(lake, name)
    try:
        by_status = dict(run_query(con, "request_status", run_id=name).iter_rows())
        template = None
        if exclude_template and "complete" in by_status:
            template = leave_out_template(con, run)
        found, counts = _contributions(
            con,
            run,
            mode,
            scope,
            domains=domains or {},
            by_status=by_status,
            by_request=exclude_template,
        )
        num_unlabelled = 0
        if len(counts) > 1:
            num_unlabelled = sum(c.num_requests for c in counts if c.domain == NO_DOMAIN)
            counts = tuple(c for c in counts if c.domain != NO_DOMAIN)
            found = found.filter(pl.col("domain") != NO_DOMAIN)
        if not allow_missing_tokens:
            _refuse_missing(name, scope, counts)
        rules = Rules(mode == "reference", len(counts), num_experts, depth, min_presence)
        result = audit_layers(con, found, rules)
        chance = None
        if draws:
            counted = [domain.domain for domain in counts]
            requests = request_layers(
                con, run, tokens=scope, domains=domains or {}, counted=counted
            )
            chance = audit_chance(
                requests,
                result.layers,
                rules,
                draws=draws,
                seed=seed,
                usage_of=requests.softmax_layer if mode == "paper" else requests.layer,
                same_token=same_token,
                progress=progress,
            )
    finally:
        con.close()
    return Audit(
        run_id=name,
        run_status=str(run["status"]),
        model=str(run["model"]),
        mode=mode,
        tokens=scope,
        min_presence=min_presence,
        presence_threshold=presence_threshold(len(counts), min_presence),
        rank_cutoff=depth,
        num_experts=num_experts,
        num_experts_inferred=result.num_experts if mode == "reference" else None,
        top_k=top_k,
        num_domains=len(counts),
        num_unlabelled=num_unlabelled,
        requests_by_status=by_status,
        domains=counts,
        layers=result.layers,
        contributions=result.contributions,
        overlaps=result.overlaps,
        chance=chance,
        template_tokens=template,
    )


def _contributions(
    con: duckdb.DuckDBPyConnection,
    run: Mapping[str, object],
    mode: str,
    tokens: str,
    *,
    domains: Mapping[str, str],
    by_status: Mapping[str, int],
    by_request: bool,
) -> tuple[pl.DataFrame, tuple[AuditDomain, ...]]:
    """Contribution per layer, domain and expert; and the domains they come from."""
    run_id = str(run["run_id"])
    if "complete" not in by_status:
        raise InputError(
            f"run {run_id!r} has no complete requests", "finish it with `tracer capture`."
        )
    labels = json.dumps(dict(domains))
    requests = run_query(con, "domain_requests", run_id=run_id, tokens=tokens, domains=labels)
    if requests.is_empty():
        raise InputError(
            f"run {run_id!r} has no {_SCOPE_WORDS[tokens]}", "choose others with --tokens."
        )
    if domains and not requests["num_moved"].sum():
        raise InputError(
            f"none of the {len(domains)} labels given for domains occurs in run {run_id!r}",
            "use values of requests.domain, or of the label `subject`.",
        )
    query = {"gate": "eci", "reference": "reference_weights", "paper": "eci_from_logits"}[mode]
    binds = {"run_id": run_id}
    if mode != "reference":
        binds["tokens"] = tokens
    if mode == "paper":
        _refuse_without_logits(con, run_id, tokens)
        binds["domains"] = labels
    # Sums per domain also hold aborted requests, and those a crash kept out of `requests`.
    elif by_request or domains or run["status"] != "complete" or by_status.keys() - _WHOLE_IN_SUMS:
        query += "_by_request"
        binds["domains"] = labels
    frame = run_query(con, query, **binds)
    sizes = dict(frame.group_by("domain").agg(pl.col("num_tokens").max()).iter_rows())
    if set(sizes) != set(requests["domain"]):
        raise DamagedDataError(
            f"run {run_id!r} is complete, yet its tables disagree: requests and sums name"
            " different domains",
            "import or record it again under another --run-id.",
        )
    found = frame.select("layer_id", "domain", "expert_id", pl.last().alias("contribution"))
    return found, tuple(
        AuditDomain(
            domain, num_requests, sizes[domain], prompt, cached if tokens in _PROMPT_SCOPES else 0
        )
        for domain, num_requests, _, prompt, cached in requests.iter_rows()
    )


def _refuse_without_logits(con: duckdb.DuckDBPyConnection, run_id: str, tokens: str) -> None:
    found = run_query(con, "audit/without_logits", run_id=run_id, tokens=tokens)
    total, without = found.row(0)
    if without:
        raise InputError(
            f"mode 'paper' needs router logits, which {without:,} of {total:,} requests of run"
            f" {run_id!r} lack",
            "`tracer capture --router-logits` records them; --mode gate uses the gate weights.",
        )


def _refuse_missing(run_id: str, scope: str, counts: Sequence[AuditDomain]) -> None:
    if missing := sum(domain.num_missing_prompt_tokens for domain in counts):
        total = sum(domain.num_prompt_tokens for domain in counts)
        raise MissingTokensError(
            f"tokens {scope!r} of run {run_id!r} are not whole: {missing:,} of {total:,} prompt"
            " tokens were answered from the prefix cache and have no routing rows",
            "--tokens generated and --tokens last-prompt are whole; --allow-missing-tokens audits"
            " the prompt tokens that have rows.",
        )
