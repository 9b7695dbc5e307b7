"""Audits made by hand, and larger made-up ones that agree with themselves."""

import itertools
import math
import random
from statistics import fmean, pvariance

import pytest

from tracer.records import (
    Audit,
    AuditDomain,
    CommitteeMember,
    Contribution,
    DomainOverlap,
    LayerAudit,
)

HOSTILE = "<script>alert(1)</script>"


def _layer(layer_id, committee, **changes):
    values = {
        "rank_mean": 1.5,
        "rank_var": 0.25,
        "coverage": 0.625,
        "coverage_equal_weight": 0.5,
        "influence_density": 5.0,
        "influence_density_equal_weight": 3.0,
        "num_candidates": 2,
        "fallback_used": False,
        "jaccard_mean": 0.5556,
        "jaccard_random": 0.1905,
        "gini": 0.8125,
    }
    members = tuple(CommitteeMember(e, 1.0, 1.5, 0.25, 0.3125) for e in committee)
    return LayerAudit(layer_id, committee, members, **values | changes)


@pytest.fixture
def audit():
    """Layers 1, 2, 4; eight experts, lists of two; one domain has a hostile name."""
    contributions = [
        Contribution(layer_id, domain, expert_id, value, rank)
        for layer_id in (1, 2, 4)
        for domain, ranked in (
            ("law", [(0, 0.5), (1, 0.25), (7, 0.125)]),
            (HOSTILE, [(1, 0.5), (0, 0.25)]),
            ("code", [(0, 0.5), (2, 0.25)]),
        )
        for rank, (expert_id, value) in enumerate(ranked, start=1)
    ]
    return Audit(
        run_id="run-1",
        run_status="complete",
        model="tiny & <moe>",
        mode="gate",
        tokens="prompt",
        min_presence=0.8,
        presence_threshold=3,
        rank_cutoff=2,
        num_experts=8,
        num_experts_inferred=None,
        top_k=2,
        num_domains=3,
        num_unlabelled=0,
        requests_by_status={"complete": 35},
        domains=[
            AuditDomain("law", 10, 1200, 1200, 0),
            AuditDomain(HOSTILE, 20, 2400, 2400, 0),
            AuditDomain("code", 5, 34567, 34567, 0),
        ],
        layers=[
            _layer(1, (0,)),
            _layer(2, (0, 1), influence_density=math.inf, influence_density_equal_weight=math.inf),
            _layer(4, (1,), fallback_used=True, coverage=0.3333, gini=0.7512, rank_var=1.75),
        ],
        contributions=contributions,
        overlaps=[
            DomainOverlap(layer_id, a, b, value)
            for layer_id in (1, 2, 4)
            for a, b, value in (
                ("law", HOSTILE, 1.0),
                ("code", "law", 1 / 3),
                (HOSTILE, "code", 0.25 if layer_id == 4 else 1 / 3),
            )
        ],
    )


@pytest.fixture
def run_row():
    """A row of the table ``runs``, some of it unknown."""
    return {
        "run_id": "run-1",
        "model": "tiny & <moe>",
        "model_revision": None,
        "engine": "vllm",
        "engine_version": "0.32.0",
        "num_experts": 8,
        "top_k": 2,
        "moe_layers": [1, 2, 4],
        "renormalised": False,
        "weight_convention": "unscaled",
        "weight_precision": "bf16",
    }


@pytest.fixture(scope="session")
def made_up_audit():
    """Factory of audits of any size, as a router with a few standing experts would give."""
    return make_up


def make_up(num_layers, num_experts, num_domains, *, k=8, mode="gate", tokens="prompt", seed=0):
    rng = random.Random(seed)
    names = ("STEM-Math", "STEM-Physics", "STEM-Chemistry", "STEM-BioMed", "CS-Eng", "SocSci")
    names += ("Humanities", "Lang-Ling", "Biz-Law")
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
