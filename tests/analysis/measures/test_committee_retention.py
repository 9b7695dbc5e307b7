"""committee_retention and candidate_retention: by hand, in NumPy, by audits, and by chance."""

from dataclasses import replace

import numpy as np
import pytest

from tests.analysis.measures.conftest import LAYERS, NUM_EXPERTS, TOP_K, TOP_M, arrays_of
from tracer.analysis.audit import audit
from tracer.analysis.measures.catalogue import measure_named
from tracer.analysis.measures.run import Settings, run_measure
from tracer.errors import InputError


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


def test_weights_that_are_scaled_count_tokens_alike(make_lake, request_of, take):
    """Two tokens {0: .6, 1: .003}, then {2: .35, 3: .34} and twice {2: .2, 3: .19}; k = 2 of 4.

    As they are, 0 has 1.2 and 2 has .75: 0 alone is the committee of both budgets. Scaled to sum to
    1, budget 1 has 2 in three tokens and 0 in two, so 2; budget 2 has 0 with 2 * .6 / .603 = 1.99
    and 2 with .35 / .69 + 2 * .2 / .39 = 1.53, so 0, of which budget 1 retains none.
    """
    tokens = [{0: 0.6, 1: 0.003}] * 2 + [{2: 0.35, 3: 0.34}] + [{2: 0.2, 3: 0.19}] * 2
    lake = make_lake([request_of("a", "law", [{0: token} for token in tokens])], num_experts=4)
    kept, lost = (
        [(0, 1, 1, 1, 0.25), (0, 2, 1, 1, 0.25)],
        [(0, 1, 1, 0, 0.25), (0, 2, 1, 1, 0.25)],
    )

    def found(**options):
        return take(lake, "committee_retention", **options).rows()

    assert found() == found(renormalise="no") == kept
    assert found(renormalise="yes") == lost
    lake.run_rows[0]["renormalised"] = True
    assert found() == lost
    assert found(renormalise="no") == kept
    with pytest.raises(InputError, match="has no renormalise 'maybe'") as told:
        found(renormalise="maybe")
    assert told.value.hint == "there are: model, yes, no."


def test_candidates_by_hand(make_lake, request_of, take):
    """One token of softmax .5, .3, .15, .05 and one of .15, .3, .5, .05; k = 1 of 4, M = 3.

    Budget 1: law lists 0, math 2, each in one of two domains: both, by the fallback. Budget 2: 1 is
    in both lists, second: alone a candidate, so none of the two is retained. Budget 3: 0 and 2 have
    ranks 1 and 3, 1 has 2 and 2: means alike, the variance of 1 least. None again.
    """
    tokens = {"law": [0.5, 0.3, 0.15, 0.05], "math": [0.15, 0.3, 0.5, 0.05]}
    requests = [
        request_of(name, name, [{6: {int(np.argmax(p)): 0.5}}], logits=[{6: np.log(p).tolist()}])
        for name, p in tokens.items()
    ]
    lake = make_lake(requests, num_experts=4, top_k=1, top_m=3)
    assert take(lake, "candidate_retention").rows() == [
        (6, 1, 2, 1, 0.5),
        (6, 2, 1, 0, 0.25),
        (6, 3, 1, 0, 0.25),
    ]


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


def eci_of(choices, order, weights, budget, *, scaled):
    """Sums [domains, experts] where each token keeps ``budget`` of its ``order``."""
    names = sorted(set(choices.domain))
    kept = weights[:, :budget]
    if scaled:
        kept = kept / kept.sum(axis=1, keepdims=True)
    eci = np.zeros((len(names), NUM_EXPERTS))
    rows = np.searchsorted(names, choices.domain)
    np.add.at(eci, (rows[:, None], order[:, :budget]), kept)
    return eci


def wanted_rows(choices, layer, order, weights, *, scaled):
    members = [
        committee(eci_of(choices, order, weights, budget, scaled=scaled), budget)
        for budget in range(1, order.shape[1] + 1)
    ]
    whole = members[TOP_K - 1]
    return [
        (layer, budget, len(own), len(own & whole) / len(whole), len(own) / NUM_EXPERTS)
        for budget, own in enumerate(members, 1)
    ]


@pytest.mark.parametrize("renormalise", ["no", "yes"])
@pytest.mark.parametrize("tokens", ["all", "prompt", "last-prompt", "generated"])
def test_beside_numpy(made, take, tokens, renormalise):
    lake, requests = made
    choices = arrays_of(requests, tokens)
    options = {"tokens": tokens, "renormalise": renormalise}
    found = take(lake, "committee_retention", **options)
    beyond = take(lake, "candidate_retention", **options)
    for layer in LAYERS:
        scaled = renormalise == "yes"
        chosen = choices.ids[layer], choices.weights[layer]
        wanted = wanted_rows(choices, layer, *chosen, scaled=scaled)
        assert found.filter(layer_id=layer).rows() == wanted
        gates = np.exp(choices.logits[layer])
        gates = (gates / gates.sum(axis=1, keepdims=True)).astype(np.float32).astype(float)
        order = np.argsort(-gates, axis=1, kind="stable")[:, :TOP_M]
        scores = np.take_along_axis(gates, order, axis=1)
        wanted = wanted_rows(choices, layer, order, scores, scaled=scaled)
        assert beyond.filter(layer_id=layer).rows() == wanted


@pytest.mark.parametrize("renormalise", [True, False])
def test_every_budget_is_the_audit_of_a_run_that_had_it(made, make_lake, take, renormalise):
    """Runs of other budgets with the same logits: sizes, and what they share with k's committee."""
    lake, requests = made
    lake.run_rows[0]["renormalised"] = renormalise
    found = take(lake, "candidate_retention", tokens="prompt")
    below = take(lake, "committee_retention", tokens="prompt")
    assert found.filter(found["budget"] <= TOP_K).rows() == below.rows()
    committees = {}
    for budget in range(1, TOP_M + 1):
        other = make_lake(
            chosen_by(requests, budget, renormalise=renormalise),
            num_experts=NUM_EXPERTS,
            top_k=budget,
            folder=f"k{budget}",
        )
        committees[budget] = [
            set(layer.committee) for layer in audit(other, tokens="prompt").layers
        ]
    for budget, layers in committees.items():
        rows = found.filter(budget=budget)
        assert rows["size"].to_list() == [len(own) for own in layers]
        assert rows["retained"].to_list() == [
            len(own & whole) / len(whole)
            for own, whole in zip(layers, committees[TOP_K], strict=True)
        ]


def chosen_by(requests, budget, *, renormalise):
    """The same requests, each token with the ``budget`` best by its logits."""
    found = []
    for request in requests:
        tokens = []
        for logits in request.logits:
            token = {}
            for layer, scores in logits.items():
                gates = np.exp(scores) / np.exp(scores).sum()
                kept = np.argsort(-gates, kind="stable")[:budget]
                whole = gates[kept].sum() if renormalise else 1
                token[layer] = {int(e): float(gates[e] / whole) for e in kept}
            tokens.append(token)
        prompt = len(request.prompt)
        found.append(replace(request, prompt=tokens[:prompt], generated=tokens[prompt:]))
    return found


def test_one_text_but_for_what_it_reads():
    bodies = [
        "\n".join(line for line in measure_named(name).sql.splitlines() if line[:2] != "--")
        for name in ("committee_retention", "candidate_retention")
    ]
    assert bodies[0].replace("budget_usage", "candidate_usage") == bodies[1]


def test_what_a_run_lacks_is_told(made, make_lake, take):
    lake, requests = made
    plain = make_lake(requests, num_experts=NUM_EXPERTS, folder="plain")
    with pytest.raises(InputError, match="has no candidates") as told:
        take(plain, "candidate_retention")
    assert "`tracer capture --top-m`" in told.value.hint
    for name, value in (("selection_bias", True), ("scoring_function", "sigmoid")):
        lake.run_rows[0][name] = value
        with pytest.raises(InputError, match="scores cannot stand for gate weights"):
            take(lake, "candidate_retention")


def test_the_template_is_left_out(make_lake, request_of, take):
    """All prompts begin with id 5, which goes to 0. Budget 1 has 0 with it, else 1, as budget 2."""
    first, then = np.log([0.7, 0.15, 0.1, 0.05]).tolist(), np.log([0.1, 0.6, 0.2, 0.1]).tolist()
    tokens = [{2: {0: 0.7, 1: 0.15}}, {2: {1: 0.6, 2: 0.2}}]
    requests = [
        request_of(f"q{n}", "law", tokens, token_ids=[5, 6 + n], logits=[{2: first}, {2: then}])
        for n in range(3)
    ]
    lake = make_lake(requests, num_experts=4, top_m=3)
    for name in ("committee_retention", "candidate_retention"):
        every = run_measure(lake, name, settings=Settings(draws=0)).frame
        assert every.filter(budget=1)["retained"].item() == 0
        some = run_measure(lake, name, settings=Settings(draws=0, exclude_template=True)).frame
        assert some.filter(budget=1)["retained"].item() == 1


@pytest.mark.parametrize("name", ["committee_retention", "candidate_retention"])
def test_the_whole_budget_retains_all_in_every_draw(made, take, name):
    found = take(made[0], name, draws=19)
    whole = found.filter(budget=TOP_K)
    for column in ("retained", "retained_low", "retained_high", "retained_chance"):
        assert (whole[column] == 1).all()
    assert (found["size_chance"] > 0).all()
    assert found["retained_chance"].is_between(0, 1).all()
    assert found["budget"].max() == (TOP_K if name == "committee_retention" else TOP_M)
