"""Audits made by hand, and larger made-up ones."""

import math

import pytest

from tests.report.made_up import make_up
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
