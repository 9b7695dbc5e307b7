"""Verdicts of made-up runs: what is planted is found, what is not is claimed in 5 % of them.

The long version is benchmarks/false_positives.py.
"""

import numpy as np
import polars as pl
import pytest

from benchmarks.false_positives import DOMAIN, KINDS, SIZES, band, claims, rates
from tracer.analysis.audit_chance import audit_chance
from tracer.analysis.layers import Rules, audit_layers
from tracer.analysis.request_usage import RequestLayers, domain_contributions
from tracer.analysis.sql import empty_connection

RUNS = 1000


@pytest.mark.parametrize("kind", KINDS)
def test_shares_of_claims(kind):
    """1,000 runs of 19 draws: 5 % are 3.2 to 6.8 % in 99 % of such studies."""
    low, high = band(RUNS)
    assert (round(low, 3), round(high, 3)) == (0.032, 0.068)
    for share, planted in zip(rates(kind, RUNS, 19), KINDS[kind][1:], strict=True):
        assert share > 0.95 if planted else low <= share <= high


def as_frame(contributions):
    domain, expert = np.nonzero(~np.isnan(contributions))
    return pl.DataFrame(
        {
            "layer_id": np.zeros(len(domain), dtype=int),
            "domain": [f"d{number}" for number in domain],
            "expert_id": expert,
            "contribution": contributions[domain, expert],
        }
    )


@pytest.mark.parametrize("kind", KINDS)
def test_claims_are_the_audit_s_verdicts(kind):
    """One layer of a run, told by the audit itself."""
    usage = KINDS[kind][0](np.random.default_rng(8))[0]
    requests = RequestLayers(
        "r", "all", tuple(f"d{n}" for n in range(len(SIZES))), DOMAIN, 16, 4, None, None
    )
    rules = Rules(False, len(SIZES), 16, 4, 0.8)
    recorded, _ = domain_contributions(usage, DOMAIN[None], len(SIZES))
    layers = audit_layers(empty_connection(), as_frame(recorded[0]), rules).layers
    chance = audit_chance(requests, layers, rules, draws=99, seed=0, usage_of=lambda _: usage)
    agrees, differs = claims([usage], 99, 0)
    assert chance.agreement.startswith("standing committee") == agrees
    assert (chance.differences == "domains differ beyond chance") == differs
