"""Committees of other budgets, against audits of runs that chose so many experts."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tracer.analysis.audit import audit
from tracer.analysis.retention import retention
from tracer.errors import InputError
from tracer.schema import arrow_schema

NUM_EXPERTS, TOP_K = 8, 3


def probabilities(seed=0):
    """(request, domain, softmax by layer and token) of 3 domains, two layers, two experts ahead."""
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(9):
        scores = rng.normal(size=(2, 4, NUM_EXPERTS)) + 2 * (np.arange(NUM_EXPERTS) < 2)
        scores[:, :, 2 + number % 3] += 1.5
        gates = (np.exp(scores) / np.exp(scores).sum(axis=2, keepdims=True)).astype(np.float32)
        rows.append((f"q{number}", f"d{number % 3}", gates))
    return rows


def requests_of(request_of, rows, top_k, *, renormalise=False):
    found = []
    for name, domain, gates in rows:
        tokens = [{} for _ in range(gates.shape[1])]
        for layer, values in zip((1, 4), gates, strict=True):
            for token, weights in zip(tokens, values.tolist(), strict=True):
                chosen = sorted(range(NUM_EXPERTS), key=lambda e: (-weights[e], e))[:top_k]
                whole = sum(weights[e] for e in chosen) if renormalise else 1
                token[layer] = {e: weights[e] / whole for e in chosen}
        found.append(request_of(name, domain, tokens[:3], tokens[3:]))
    return found


@pytest.fixture
def lake_of(make_lake, request_of):
    """A run of top-k 3 whose candidates are the five best."""

    def lake(*, renormalise=False, scoring="softmax"):
        rows = probabilities()
        requests = requests_of(request_of, rows, TOP_K, renormalise=renormalise)
        made = make_lake(requests, num_experts=NUM_EXPERTS, top_k=TOP_K)
        made.run_rows[0] |= {"scoring_function": scoring, "renormalised": renormalise}
        best = []
        for name, _, gates in rows:
            for layer, values in zip((1, 4), gates, strict=True):
                for position, weights in enumerate(values.tolist()):
                    ids = sorted(range(NUM_EXPERTS), key=lambda e: (-weights[e], e))[:5]
                    best.append(
                        {
                            "run_id": "r1",
                            "request_id": name,
                            "position": position,
                            "layer_id": layer,
                            "expert_ids": ids,
                            "scores": [weights[e] for e in ids],
                        }
                    )
        path = made.path / "candidates.parquet"
        table = pa.Table.from_pylist(best, schema=arrow_schema("candidates"))
        pq.write_table(table, path)
        return replace(made, table_files={**made.table_files, "candidates": [path]})

    return lake


@pytest.mark.parametrize(
    ("tokens", "renormalise"),
    [("prompt", True), ("last-prompt", False), ("generated", False), ("all", True)],
)
def test_every_budget_is_the_audit_of_a_run_that_had_it(
    lake_of, make_lake, request_of, tokens, renormalise
):
    found = retention(lake_of(renormalise=renormalise), tokens=tokens)
    assert [row.budget for row in found] == [1, 2, 3, 4, 5]
    assert [row.source for row in found] == ["choices"] * 3 + ["candidates"] * 2
    reference = None
    for row in reversed(found):
        other = make_lake(
            requests_of(request_of, probabilities(), row.budget, renormalise=renormalise),
            num_experts=NUM_EXPERTS,
            top_k=row.budget,
            folder=f"k{row.budget}",
        )
        expected = audit(other, tokens=tokens)
        assert [layer.committee for layer in row.layers] == [
            layer.committee for layer in expected.layers
        ]
        if row.budget == TOP_K:
            reference = [set(layer.committee) for layer in expected.layers]
    for row in found:
        shares = [
            len(own & set(layer.committee)) / len(own)
            for own, layer in zip(reference, row.layers, strict=True)
        ]
        assert [layer.retained for layer in row.layers] == shares
        assert row.retained == pytest.approx(np.mean(shares))
        sizes = [len(layer.committee) for layer in row.layers]
        assert row.retained_random == pytest.approx(np.mean(sizes) / NUM_EXPERTS)
    assert found[TOP_K - 1].retained == 1


def test_budgets_beyond_what_was_recorded(lake_of, make_lake, request_of):
    with pytest.raises(InputError, match="budget 6 is not one of 1 to 5"):
        retention(lake_of(), budgets=[6])
    with pytest.raises(InputError, match="budget 4 is not one of 1 to 3"):
        retention(lake_of(scoring="sigmoid"), budgets=[4])
    plain = make_lake(requests_of(request_of, probabilities(), 3), top_k=3, folder="plain")
    assert [row.budget for row in retention(plain)] == [1, 2, 3]
    with pytest.raises(InputError, match="budget 0 is not"):
        retention(plain, budgets=[0])
