"""The audit of a run, end to end over Parquet tables."""

import math
from dataclasses import replace

import pytest

from tracer.analysis.audit import audit
from tracer.analysis.sql import connect, run_sql
from tracer.errors import DamagedDataError, InputError, UnknownRunError
from tracer.records import AuditDomain, CommitteeMember

HOSTILE = "o'hara \"; select 1 --"


def one_token(layer, weights):
    return [{layer: weights}]


@pytest.fixture
def three(make_lake, request_of):
    """k = 2 of 8, layers 3 and 5, one prompt token per request.

    layer 3: a {1: .6, 2: .4}, b {2: .7, 1: .3}, c {1: .5, 4: .5}; layer 5: a and b {0: .9, 6: .1}.
    """
    return make_lake(
        [
            request_of("qa", "a", [{3: {1: 0.6, 2: 0.4}, 5: {0: 0.9, 6: 0.1}}]),
            request_of("qb", HOSTILE, [{3: {2: 0.7, 1: 0.3}, 5: {0: 0.9, 6: 0.1}}]),
            request_of("qc", "c", [{3: {1: 0.5, 4: 0.5}}]),
        ]
    )


def test_gate_mode_by_hand(three):
    """Layer 3, n = 3, threshold 3: expert 1 is in every list with ranks 1, 2, 1.

    Mean 4/3, variance 2/9; ECI .6, .3, .5 make coverage 1.4/3; others hold 1.6/3 over 7 experts.
    Overlaps: {1,2} and {1,2} 1, twice {1,2} and {1,4} 1/3. Experts 0 and 5 are never chosen.
    Gini of (1.4, 1.1, .5, 0 x 5)/3: sorted places 6, 7, 8: (.5 * 3 + 1.1 * 5 + 1.4 * 7) / (8 * 3).
    """
    found = audit(three)
    assert (found.run_id, found.model, found.mode, found.tokens) == ("r1", "m", "gate", "prompt")
    assert (found.num_domains, found.presence_threshold, found.rank_cutoff) == (3, 3, 2)
    assert (found.num_experts, found.num_experts_inferred, found.top_k) == (8, None, 2)
    assert found.domains == (
        AuditDomain("a", 1, 1, 1, 0),
        AuditDomain("c", 1, 1, 1, 0),
        AuditDomain(HOSTILE, 1, 1, 1, 0),
    )
    layer = found.layers[0]
    assert (layer.layer_id, layer.committee, layer.num_candidates) == (3, (1,), 1)
    assert layer.members == (
        CommitteeMember(
            1,
            presence=1.0,
            rank_mean=pytest.approx(4 / 3),
            rank_var=pytest.approx(2 / 9),
            contribution_mean=pytest.approx(1.4 / 3),
        ),
    )
    assert layer.coverage == pytest.approx(1.4 / 3)
    assert layer.coverage_equal_weight == 0.5
    assert layer.influence_density == pytest.approx((1.4 / 3) / ((1.6 / 3) / 7))
    assert layer.influence_density_equal_weight == 7
    assert not layer.fallback_used
    assert layer.jaccard_mean == pytest.approx(5 / 9)
    assert layer.gini == pytest.approx(16.8 / 24)
    contributions = {
        (c.domain, c.expert_id): (round(c.contribution, 6), c.rank)
        for c in found.contributions
        if c.layer_id == 3
    }
    assert contributions == {
        ("a", 1): (0.6, 1),
        ("a", 2): (0.4, 2),
        (HOSTILE, 2): (0.7, 1),
        (HOSTILE, 1): (0.3, 2),
        ("c", 1): (0.5, 1),
        ("c", 4): (0.5, 2),
    }


def test_a_layer_without_a_domain(three):
    """Layer 5 lacks c: 0 and 6 are in 2 of 3 lists, so the fallback takes them.

    Expert 0 has ranks 1, 1, 3 (5/3, 8/9), expert 6 2, 2, 3 (7/3, 2/9): neither beats the other.
    They hold everything."""
    layer = audit(three).layers[1]
    assert (layer.layer_id, layer.committee, layer.fallback_used) == (5, (0, 6), True)
    assert [member.presence for member in layer.members] == [pytest.approx(2 / 3)] * 2
    assert layer.rank_mean == pytest.approx(2)
    assert layer.rank_var == pytest.approx(5 / 9)
    assert layer.coverage == pytest.approx(1)
    assert layer.influence_density == math.inf
    assert layer.influence_density_equal_weight == math.inf
    assert layer.jaccard_mean == 1


def test_one_domain_and_one_request(make_lake, request_of):
    """n = 1: ranks are those of the domain, variance 0, so the first beats the rest; no pairs."""
    lake = make_lake([request_of("q", "none", one_token(0, {4: 0.8, 2: 0.2}))])
    found = audit(lake)
    layer = found.layers[0]
    assert (layer.committee, layer.coverage, layer.num_candidates) == (
        (4,),
        pytest.approx(0.8),
        2,
    )
    assert math.isnan(layer.jaccard_mean)
    assert found.overlaps == ()


def test_reference_mode_of_one_request_has_nothing_to_normalise(make_lake, request_of):
    """N = 1: every normalised weight is 0, so coverage is 0; chosen experts are listed first."""
    lake = make_lake([request_of("q", "none", one_token(0, {4: 0.8, 2: 0.2}))])
    found = audit(lake, mode="reference")
    layer = found.layers[0]
    assert [(c.expert_id, c.contribution, c.rank) for c in found.contributions] == [
        (2, 0, 1),
        (4, 0, 2),
    ]
    assert (layer.committee, layer.coverage, layer.influence_density) == ((2,), 0, 0)
    assert (found.num_experts, found.num_experts_inferred) == (8, 64)


def test_token_scopes(make_lake, request_of):
    """Prompt {1, 2}, last prompt token {3, 4}, generated {5, 6} (.6 to .4): first is the member."""
    request = request_of(
        "q",
        "d",
        [{0: {1: 0.6, 2: 0.4}}, {0: {1: 0.6, 2: 0.4}}, {0: {3: 0.6, 4: 0.4}}],
        [{0: {5: 0.6, 6: 0.4}}] * 4,
    )
    lake = make_lake([request])
    found = {scope: audit(lake, tokens=scope) for scope in ("last-prompt", "prompt", "generated")}
    found["all"] = audit(lake, tokens="all")
    assert {scope: a.layers[0].committee for scope, a in found.items()} == {
        "last-prompt": (3,),
        "prompt": (1,),
        "generated": (5,),
        "all": (5,),
    }
    assert {scope: a.domains[0].num_tokens for scope, a in found.items()} == {
        "last-prompt": 1,
        "prompt": 3,
        "generated": 4,
        "all": 7,
    }


def test_rank_cutoff_sets_the_depth_of_lists(three):
    """k = 1 in layer 3: firsts are 1, 2 and 1 (tie with 4 by id): 1 is listed by 2 of 3."""
    layer = audit(three, rank_cutoff=1).layers[0]
    assert (layer.committee, layer.fallback_used, layer.rank_mean) == (
        (1,),
        True,
        pytest.approx(4 / 3),
    )
    assert layer.coverage == pytest.approx(1.1 / 1.8)
    deeper = audit(three, rank_cutoff=8).layers[0]
    assert deeper.committee == (1,)
    assert deeper.coverage == pytest.approx(1.4 / 3)


def test_domains_are_renamed_by_subject_then_domain(make_lake, request_of):
    """q1 by subject, q2 by domain, q3 keeps its own; subject comes before domain."""
    weights = [{0: {1: 0.6, 2: 0.4}}]
    lake = make_lake(
        [
            request_of("q1", "mmlu", weights, labels={"subject": "law"}),
            request_of("q2", "law", weights),
            request_of("q3", "physics", weights, labels={"subject": "optics"}),
            request_of("q4", "law", weights, labels={"subject": "mmlu"}),
        ]
    )
    found = audit(lake, domains={"law": HOSTILE, "mmlu": "M"})
    assert [(d.domain, d.num_requests) for d in found.domains] == [
        ("M", 1),
        (HOSTILE, 2),
        ("physics", 1),
    ]
    assert audit(lake, domains={"law": HOSTILE, "mmlu": "M"}, mode="reference").num_domains == 3
    with pytest.raises(InputError, match="none of the 1 labels"):
        audit(lake, domains={"biology": "B"})


@pytest.mark.parametrize("mode", ["gate", "reference"])
def test_requests_that_are_not_complete_do_not_count(make_lake, request_of, mode):
    """Of a's requests only q1 and q2 count; skipped ones never ran; b has an aborted one only."""
    good = [{0: {1: 0.6, 2: 0.4}}]
    requests = [
        request_of("q1", "a", good),
        request_of("q2", "a", [{0: {1: 0.7, 3: 0.3}}]),
        request_of("q3", "a", [], status="skipped"),
    ]
    aborted = [
        request_of("q4", "a", [{0: {5: 0.9, 6: 0.1}}] * 9, status="aborted"),
        request_of("q5", "b", good, status="aborted"),
    ]
    plain = audit(make_lake(requests), mode=mode)
    mixed = audit(make_lake(requests + aborted, folder="mixed"), mode=mode)
    assert mixed.requests_by_status == {"aborted": 2, "complete": 2, "skipped": 1}
    assert replace(mixed, requests_by_status=plain.requests_by_status) == plain
    assert plain.domains == (AuditDomain("a", 2, 2, 2, 0),)


@pytest.mark.parametrize("mode", ["gate", "reference"])
@pytest.mark.parametrize("domain", ["a", "b"])
def test_requests_that_are_not_committed_do_not_count(make_lake, request_of, mode, domain):
    """A crash left sums and routing of q3, in a domain that `requests` knows or does not."""
    requests = [
        request_of("q1", "a", [{0: {1: 0.6, 2: 0.4}}]),
        request_of("q2", "a", [{0: {1: 0.7, 3: 0.3}}]),
    ]
    left = [request_of("q3", domain, [{0: {5: 0.9, 6: 0.1}}] * 9)]
    crashed = make_lake(requests, uncommitted=left, status="running", folder="crashed")
    found = audit(crashed, mode=mode)
    assert found.run_status == "running"
    assert replace(found, run_status="complete") == audit(make_lake(requests), mode=mode)
    con = connect(crashed)
    assert run_sql(con, "select count(*) from routing").item() == 11
    assert run_sql(con, "select count(*), count(domain) from choices").rows() == [(4, 4)]


def test_a_complete_run_whose_tables_disagree_is_damaged(make_lake, request_of):
    weights = [{0: {1: 0.6, 2: 0.4}}]
    lake = make_lake([request_of("q1", "a", weights)], uncommitted=[request_of("q2", "b", weights)])
    with pytest.raises(DamagedDataError, match="run 'r1' is complete, yet its tables disagree"):
        audit(lake)


def test_a_domain_without_tokens_in_the_scope_is_left_out(make_lake, request_of):
    lake = make_lake(
        [
            request_of("q1", "a", [{0: {1: 0.6, 2: 0.4}}], [{0: {1: 0.6, 2: 0.4}}]),
            request_of("q2", "b", [{0: {1: 0.6, 2: 0.4}}]),
        ]
    )
    assert audit(lake, tokens="generated").num_domains == 1
    assert audit(lake, tokens="prompt").num_domains == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "paper"}, "needs router logits, which 3 of 3 requests of run 'r1' lack"),
        ({"mode": "gates"}, "unknown mode 'gates'"),
        ({"tokens": "decode"}, "unknown tokens 'decode'"),
        ({"mode": "reference", "tokens": "prompt"}, "last prompt token only, not 'prompt'"),
        ({"min_presence": 0}, "min presence 0 is not"),
        ({"min_presence": 1.5}, "min presence 1.5 is not"),
        ({"min_presence": math.nan}, "min presence nan is not"),
        ({"rank_cutoff": 0}, "rank cutoff 0 is not"),
        ({"rank_cutoff": 9}, "rank cutoff 9 is not"),
        ({"tokens": "generated"}, "run 'r1' has no generated tokens"),
    ],
)
def test_options_that_cannot_be_used(three, options, message):
    with pytest.raises(InputError, match=message):
        audit(three, **options)


def test_reference_mode_takes_its_own_scope_by_name(three):
    assert audit(three, mode="reference", tokens="last-prompt").tokens == "last-prompt"


def test_a_run_without_complete_requests(make_lake, request_of):
    with pytest.raises(InputError, match="no complete requests"):
        audit(make_lake([request_of("q", "a", [], status="skipped")]))
    with pytest.raises(InputError, match="no complete requests"):
        audit(make_lake([], folder="empty"))


def test_an_unknown_run(three):
    with pytest.raises(UnknownRunError):
        audit(three, run_id="other")
