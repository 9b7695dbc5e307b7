"""Mode `paper`: the softmax over all experts, against plain NumPy over the same logits."""

import numpy as np
import polars as pl
import pytest

from tests.analysis.measures.conftest import NUM_EXPERTS, TOP_K, arrays_of, made_requests
from tracer.analysis.audit import audit
from tracer.analysis.layers import Rules, audit_layers
from tracer.analysis.sql import connect, empty_connection, run_query
from tracer.errors import InputError


@pytest.fixture(params=[True, False], ids=["planted", "random"])
def made(request, make_lake):
    requests = made_requests(4, planted=request.param)
    return make_lake(requests, num_experts=NUM_EXPERTS, top_k=TOP_K), requests


def mean_probabilities(requests, tokens):
    """{(layer, domain): [probability by expert]} over the tokens of a scope."""
    found = arrays_of(requests, tokens)
    means = {}
    for layer, logits in found.logits.items():
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        shares = powers / powers.sum(axis=1, keepdims=True)
        for domain in np.unique(found.domain):
            means[layer, str(domain)] = shares[found.domain == domain].mean(axis=0)
    return means


@pytest.mark.parametrize("tokens", ["last-prompt", "prompt", "generated", "all"])
def test_contributions_and_committees(made, tokens):
    """Means of every expert to 1e-12; the committee is the one those means give."""
    lake, requests = made
    found = audit(lake, mode="paper", tokens=tokens)
    means = mean_probabilities(requests, tokens)
    ours = {(c.layer_id, c.domain, c.expert_id): c.contribution for c in found.contributions}
    expected = {(*key, e): value for key, row in means.items() for e, value in enumerate(row)}
    assert ours == pytest.approx(expected, rel=1e-12)
    rows = [(layer, domain, e, v) for (layer, domain, e), v in expected.items()]
    names = ["layer_id", "domain", "expert_id", "contribution"]
    frame = pl.DataFrame(rows, schema=names, orient="row")
    rules = Rules(False, found.num_domains, NUM_EXPERTS, TOP_K, 0.8)
    layers = audit_layers(empty_connection(), frame, rules).layers
    assert [x.committee for x in found.layers] == [x.committee for x in layers]
    assert (found.mode, found.tokens, found.num_experts_inferred) == ("paper", tokens, None)


def test_the_last_prompt_token_is_the_default(made):
    lake, _ = made
    assert audit(lake, mode="paper").tokens == "last-prompt"


def test_chance_is_of_the_softmax_too(made):
    """Estimates from sums per request are those from sums per domain."""
    lake, _ = made
    found = audit(lake, mode="paper", tokens="all", draws=39)
    for layer, chance in zip(found.layers, found.chance.layers, strict=True):
        for name in ("gini", "coverage", "jaccard_mean", "rank_mean"):
            estimate = chance.of(name, "experts").estimate
            assert estimate == pytest.approx(getattr(layer, name), rel=1e-9)


def test_domains_are_renamed(made):
    lake, _ = made
    assert [d.domain for d in audit(lake, mode="paper", domains={"math": "law"}).domains] == [
        "law",
        "poems",
    ]


def test_a_request_without_logits_is_refused(make_lake):
    """One of 16 lacks a token's, another all."""
    requests = made_requests(4, planted=True)
    requests[3].logits = []
    requests[5].logits = requests[5].logits[:-1]
    lake = make_lake(requests, num_experts=NUM_EXPERTS, top_k=TOP_K)
    with pytest.raises(InputError, match="which 2 of 16 requests of run 'r1' lack") as refused:
        audit(lake, mode="paper", tokens="all")
    assert "tracer capture --router-logits" in str(refused.value.hint)


def test_large_logits_do_not_overflow(make_lake, request_of):
    """Softmax of 1000 and 1000 - ln 3 is 3/4 and 1/4."""
    logits = [1000.0, 1000.0 - float(np.log(3)), -1000.0]
    request = request_of("q", "a", [{0: {0: 0.75, 1: 0.25}}], logits=[{0: logits}])
    lake = make_lake([request], num_experts=3)
    rows = run_query(
        connect(lake), "eci_from_logits", run_id="r1", tokens="prompt", domains="{}"
    ).rows()
    assert [row[:4] for row in rows] == [(0, "a", 0, 1), (0, "a", 1, 1), (0, "a", 2, 1)]
    assert [row[4] for row in rows] == pytest.approx([0.75, 0.25, 0], abs=1e-5)
