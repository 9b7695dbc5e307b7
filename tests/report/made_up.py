"""Audits of any size that agree with themselves: no model, numbers from a seed."""

import itertools
import math
import random
from statistics import fmean, pvariance

from tracer.records import (
    Audit,
    AuditDomain,
    CommitteeMember,
    Contribution,
    DomainOverlap,
    LayerAudit,
)


def make_up(
    num_layers, num_experts, num_domains, *, k=8, mode="gate", tokens="prompt", seed=0, names=()
):
    """An audit of this size; domains are called `names`, then `domain-9`, `domain-10`, ..."""
    rng = random.Random(seed)
    names = names or (
        "STEM-Math",
        "STEM-Physics",
        "STEM-Chemistry",
        "STEM-BioMed",
        "CS-Eng",
        "SocSci",
        "Humanities",
        "Lang-Ling",
        "Biz-Law",
    )
    domains = [names[d] if d < len(names) else f"domain-{d}" for d in range(num_domains)]
    layers, contributions, overlaps = [], [], []
    for layer_id in range(num_layers):
        base = [rng.gauss(0, 1) for _ in range(num_experts)]
        for expert in rng.sample(range(num_experts), rng.randint(k // 2, k)):
            base[expert] += 4
        ranked = {}
        for domain in domains:
            raw = [math.exp(x + rng.gauss(0, 0.5)) for x in base]
            total = sum(raw)
            ordered = sorted(range(num_experts), key=lambda e: -raw[e])
            ranked[domain] = {e: (r, raw[e] / total) for r, e in enumerate(ordered, start=1)}
            contributions += [
                Contribution(layer_id, domain, e, value, min(rank, k + 1))
                for e, (rank, value) in ranked[domain].items()
                if rank <= k or mode == "gate"
            ]
        lists = {d: {e for e, (rank, _) in r.items() if rank <= k} for d, r in ranked.items()}
        jaccards = []
        for a, b in itertools.combinations(domains, 2):
            jaccards.append(len(lists[a] & lists[b]) / len(lists[a] | lists[b]))
            overlaps.append(DomainOverlap(layer_id, a, b, jaccards[-1]))
        deep = k if mode == "reference" else num_experts
        layers.append(
            _audited(layer_id, ranked, lists, jaccards, num_experts=num_experts, k=k, deep=deep)
        )
    return Audit(
        run_id="2026-olmoe",
        run_status="complete",
        model="allenai/OLMoE-1B-7B-0125-Instruct",
        mode=mode,
        tokens=tokens,
        min_presence=0.8,
        presence_threshold=math.ceil(0.8 * num_domains),
        rank_cutoff=k,
        num_experts=num_experts,
        num_experts_inferred=None,
        top_k=k,
        num_domains=num_domains,
        num_unlabelled=0,
        requests_by_status={"complete": sum(100 + 37 * i for i in range(num_domains))},
        domains=[
            AuditDomain(d, 100 + 37 * i, 9000 + 1234 * i, 9000 + 1234 * i, 0)
            for i, d in enumerate(domains)
        ],
        layers=layers,
        contributions=contributions,
        overlaps=overlaps,
    )


def _audited(layer_id, ranked, lists, jaccards, *, num_experts, k, deep):
    n = len(ranked)
    presence = {e: sum(e in chosen for chosen in lists.values()) for e in range(num_experts)}
    least = math.ceil(0.8 * n)
    fallback = max(presence.values()) < least
    candidates = [e for e, p in presence.items() if p >= min(least, max(presence.values()))]
    ranks = {e: [min(r[e][0], k + 1) for r in ranked.values()] for e in candidates}
    spot = {e: (fmean(r), pvariance(r)) for e, r in ranks.items()}
    committee = [
        e
        for e in candidates
        if not any(
            spot[o][0] <= spot[e][0] and spot[o][1] <= spot[e][1] and spot[o] != spot[e]
            for o in candidates
        )
    ]
    committee.sort(key=lambda e: spot[e])
    means = [
        sum(r[e][1] for r in ranked.values() if r[e][0] <= deep) / n for e in range(num_experts)
    ]
    same = (
        i / (2 * k - i) * math.comb(k, i) * math.comb(num_experts - k, k - i) for i in range(k + 1)
    )
    listed = sum(r[e][1] for d, r in ranked.items() for e in lists[d]) / n
    held = sum(r[e][1] for d, r in ranked.items() for e in lists[d] & set(committee)) / n / listed
    size = len(committee)
    ordered = sorted(means)
    gini = sum((2 * i - num_experts - 1) * x for i, x in enumerate(ordered, 1))
    members = tuple(CommitteeMember(e, presence[e] / n, *spot[e], means[e]) for e in committee)
    return LayerAudit(
        layer_id=layer_id,
        committee=tuple(committee),
        members=members,
        rank_mean=fmean(spot[e][0] for e in committee),
        rank_var=fmean(spot[e][1] for e in committee),
        coverage=held,
        coverage_equal_weight=size / k,
        influence_density=(held / size) / ((1 - held) / (num_experts - size)),
        influence_density_equal_weight=(num_experts - size) / (k - size) if k > size else math.inf,
        num_candidates=len(candidates),
        fallback_used=fallback,
        jaccard_mean=fmean(jaccards) if jaccards else math.nan,
        jaccard_random=sum(same) / math.comb(num_experts, k),
        gini=gini / num_experts / sum(ordered),
    )
