"""usage_drift, expert_drift and context_contrast: by hand, and beside NumPy on two runs."""

import numpy as np
import pytest

from tests.analysis.measures.conftest import LAYERS, NUM_EXPERTS, TOP_K, arrays_of


def test_by_hand(make_lake, request_of, together, take):
    """Loads 1/2, 1/2, 0 and 1/2, 1/4, 1/4: a quarter moved.

    Divergence: the mixture is 1/2, 3/8, 1/8 with entropy .9743, the runs have ln 2 and 1.5 ln 2.
    """
    one = [{3: {0: 0.6, 1: 0.4}}, {3: {0: 0.6, 1: 0.4}}]
    two = [{3: {0: 0.6, 1: 0.4}}, {3: {0: 0.6, 2: 0.4}}]
    lake = together(
        make_lake([request_of("q", "law", one)], num_experts=3),
        make_lake([request_of("q", "law", two)], num_experts=3, run_id="r2"),
    )
    mixed = -sum(x * np.log(x) for x in (1 / 2, 3 / 8, 1 / 8))
    assert take(lake, "usage_drift", other_run_id="r2").rows() == [
        (
            3,
            1,
            1,
            1,
            0.25,
            pytest.approx(mixed - 1.25 * np.log(2)),
            pytest.approx(np.log(2)),
            pytest.approx(1.5 * np.log(2)),
            pytest.approx(0.5 * np.log(2)),
        )
    ]
    assert take(lake, "expert_drift", other_run_id="r2").rows() == [
        (3, 0, 0.5, 0.5, 0.0),
        (3, 1, 0.5, 0.25, -0.25),
        (3, 2, 0.0, 0.25, 0.25),
    ]
    assert take(lake, "context_contrast", other_run_id="r2").rows() == [
        (3, 0, 2, 2, 1.0, 1.0, 0.0, 1.0, 1, 1),
        (3, 1, 2, 1, 1.0, 0.5, -0.5, 0.5, 2, 2),
        (3, 2, 0, 1, 0.0, 0.5, 0.5, None, 3, 3),
    ]


def entropy(p):
    return -(p[p > 0] * np.log(p[p > 0])).sum()


@pytest.mark.parametrize("tokens", ["all", "last-prompt"])
def test_beside_numpy(pair, take, tokens):
    lake, requests, others = pair
    one, two = arrays_of(requests, tokens), arrays_of(others, tokens)
    names = ["usage_drift", "expert_drift", "context_contrast"]
    drift, experts, contrast = (
        take(lake, name, other_run_id="r2", tokens=tokens) for name in names
    )
    for layer in LAYERS:
        counts = [np.bincount(c.ids[layer].ravel(), minlength=NUM_EXPERTS) for c in (one, two)]
        p, q = (count / count.sum() for count in counts)
        row = drift.filter(layer_id=layer).row(0, named=True)
        wanted = {
            "num_requests": len(set(one.request)),
            "other_num_requests": len(set(two.request)),
            "num_shared": len(set(one.request) & set(two.request)),
            "total_variation": np.abs(p - q).sum() / 2,
            "divergence": entropy((p + q) / 2) - (entropy(p) + entropy(q)) / 2,
            "entropy": entropy(p),
            "other_entropy": entropy(q),
            "entropy_change": entropy(q) - entropy(p),
        }
        for column, value in wanted.items():
            assert row[column] == pytest.approx(value, abs=1e-12), column
        rows = experts.filter(layer_id=layer)
        for column, value in (("load", p), ("other_load", q), ("load_change", q - p)):
            np.testing.assert_allclose(rows[column], value, atol=1e-12)
        rows = contrast.filter(layer_id=layer)
        np.testing.assert_array_equal(rows["num_tokens"], counts[0])
        np.testing.assert_array_equal(rows["other_num_tokens"], counts[1])
        np.testing.assert_allclose(rows["difference"], (q - p) * TOP_K, atol=1e-12)
        chosen = p > 0
        np.testing.assert_allclose(
            rows["lift"].to_numpy()[chosen], (q[chosen] / p[chosen]), atol=1e-12
        )
        assert rows["lift"].is_null().to_list() == (~chosen).tolist()
        ranks = np.argsort(np.argsort(-counts[0], kind="stable")) + 1
        np.testing.assert_array_equal(rows["share_rank"], ranks)


@pytest.mark.parametrize("made", ["planted"], indirect=True)
def test_runs_that_route_alike_lie_in_the_chance_band_and_moved_ones_above(
    made, make_lake, request_of, together, take
):
    """In layer 2, r3 chooses expert 6 in the place of expert 0.

    A change and its opposite are as likely under exchange: it is 0 in the mean. 400 exchanges in
    NumPy give the mean total variation; that of 49 draws lies within 0.02 of it.
    """
    lake, requests = made
    alike = together(lake, make_lake(requests, run_id="r2"))
    found = take(alike, "usage_drift", other_run_id="r2", draws=3)
    assert found["total_variation"].to_list() == [0, 0, 0]
    assert found["total_variation_chance"].to_list() == [0, 0, 0]

    def renamed(tokens):
        return [
            {
                k: {6 if e == 0 else e: w for e, w in v.items()} if k == 2 else v
                for k, v in t.items()
            }
            for t in tokens
        ]

    moved = [
        request_of(r.request_id, r.domain, renamed(r.prompt), renamed(r.generated))
        for r in requests
    ]
    far = together(lake, make_lake(moved, run_id="r3"))
    found = take(far, "usage_drift", other_run_id="r3", draws=49)
    assert (found["total_variation_p_adjusted"] <= 0.02).to_list() == [False, True, False]
    by_expert = take(far, "expert_drift", other_run_id="r3", draws=39).filter(layer_id=2)
    assert [
        e for e, p in by_expert["expert_id", "load_change_p_adjusted"].iter_rows() if p < 0.1
    ] == [0, 6]
    assert by_expert["load_change_chance"].to_list() == pytest.approx([0] * 8, abs=0.05)

    counts = np.zeros((2, len(requests), NUM_EXPERTS))
    for run, written in enumerate((requests, moved)):
        choices = arrays_of(written)
        for row, request in enumerate(written):
            ids = choices.ids[2][choices.request == request.request_id]
            counts[run, row] = np.bincount(ids.ravel(), minlength=NUM_EXPERTS)
    rng = np.random.default_rng(0)
    variations = []
    for _ in range(400):
        first = rng.integers(0, 2, len(requests))
        rows = np.arange(len(requests))
        p, q = (counts[side, rows].sum(axis=0) for side in (first, 1 - first))
        variations.append(np.abs(p / p.sum() - q / q.sum()).sum() / 2)
    assert found["total_variation_chance"][1] == pytest.approx(np.mean(variations), abs=0.02)
