"""committee_retention: by hand, beside NumPy, beside the audit's own retention, and by chance."""

import numpy as np
import pytest

from tests.analysis.measures.conftest import LAYERS, NUM_EXPERTS, TOP_K, arrays_of
from tracer.analysis.retention import retention


def test_by_hand(make_lake, request_of, take):
    """Two domains of one token, k = 2 of 4. Law: 0 at .6, 1 at .4; math: 1 at .6, 0 at .3.

    Budget 1: law lists 0, math 1, each in one of two domains; none is in both, so both are
    candidates by the fallback, at mean rank 1.5 and variance 1/4: equal, so both are members.
    Budget 2: both are in both lists, at mean 1.5 and variance 1/4. Retained 2 of 2; 2/4 at random.
    """
    lake = make_lake(
        [
            request_of("a", "law", [{0: {0: 0.6, 1: 0.4}}]),
            request_of("b", "math", [{0: {1: 0.6, 0: 0.3}}]),
        ],
        num_experts=4,
    )
    assert take(lake, "committee_retention").rows() == [(0, 1, 2, 1, 0.5), (0, 2, 2, 1, 0.5)]


def test_a_domain_more_leaves_one_member(make_lake, request_of, take):
    """Budget 2: 0 (ranks 1, 2) and 1 (ranks 2, 1) in both lists. Budget 1: only law lists 0.

    Math's first is 1, so as before both; a third domain with 0 first leaves budget 1 with 0 alone:
    listed in 2 of 3, as many as any (threshold 3 of 3 at 0.8), 1 in one. Budget 2: 0 has ranks 1,
    2, 1 (4/3, 2/9), 1 has 2, 1, 2 (5/3, 2/9): 0 beats it. Retained 1 of 1.
    """
    lake = make_lake(
        [
            request_of("a", "law", [{0: {0: 0.6, 1: 0.4}}]),
            request_of("b", "math", [{0: {1: 0.6, 0: 0.3}}]),
            request_of("c", "poems", [{0: {0: 0.5, 1: 0.2}}]),
        ],
        num_experts=4,
    )
    assert take(lake, "committee_retention").rows() == [(0, 1, 1, 1, 0.25), (0, 2, 1, 1, 0.25)]


def committee(eci, depth, min_presence=0.8):
    """Members by ECI [domains, experts], 0 where never chosen."""
    domains, experts = eci.shape
    ranks = np.full((domains, experts), depth + 1)
    for domain in range(domains):
        order = sorted(np.flatnonzero(eci[domain]), key=lambda e: (-eci[domain, e], e))
        for place, expert in enumerate(order[:depth], 1):
            ranks[domain, expert] = place
    listed = (ranks <= depth).sum(axis=0)
    least = min(listed.max(), max(1, np.ceil(domains * min_presence - 1e-9)))
    points = {e: (ranks[:, e].mean(), ranks[:, e].var()) for e in np.flatnonzero(listed >= least)}

    def beats(one, two):
        close = [abs(a - b) < 1e-12 for a, b in zip(one, two, strict=True)]
        less = [a < b for a, b in zip(one, two, strict=True)]
        fine = all(x or y for x, y in zip(close, less, strict=True))
        return fine and any(y and not x for x, y in zip(close, less, strict=True))

    return {e for e in points if not any(beats(points[o], points[e]) for o in points)}


@pytest.mark.parametrize("tokens", ["all", "prompt"])
def test_beside_numpy(made, take, tokens):
    lake, requests = made
    choices = arrays_of(requests, tokens)
    names = sorted(set(choices.domain))
    found = take(lake, "committee_retention", tokens=tokens)
    for layer in LAYERS:
        members = []
        for budget in range(1, TOP_K + 1):
            eci = np.zeros((len(names), NUM_EXPERTS))
            rows = np.searchsorted(names, choices.domain)
            for place in range(budget):
                np.add.at(
                    eci, (rows, choices.ids[layer][:, place]), choices.weights[layer][:, place]
                )
            members.append(committee(eci, budget))
        wanted = [
            (
                layer,
                budget,
                len(own),
                len(own & members[-1]) / len(members[-1]),
                len(own) / NUM_EXPERTS,
            )
            for budget, own in enumerate(members, 1)
        ]
        assert found.filter(layer_id=layer).rows() == wanted


def test_beside_the_audit(made, take):
    lake, _ = made
    found = take(lake, "committee_retention", tokens="prompt")
    audited = retention(lake, tokens="prompt", budgets=list(range(1, TOP_K + 1)))
    for budget in audited:
        rows = found.filter(budget=budget.budget)
        assert rows["retained"].mean() == pytest.approx(budget.retained)
        sizes = {layer.layer_id: len(layer.committee) for layer in budget.layers}
        assert dict(rows.select("layer_id", "size").iter_rows()) == sizes


def test_the_whole_budget_retains_all_in_every_draw(made, take):
    found = take(made[0], "committee_retention", draws=19).filter(budget=TOP_K)
    for column in ("retained", "retained_low", "retained_high", "retained_chance"):
        assert (found[column] == 1).all()
    assert (found["size_chance"] > 0).all()
