"""expert_clusters: by hand, along a chain, beside NumPy, and against choices dealt anew."""

import numpy as np
import pytest

from tests.analysis.measures.conftest import (
    LAYERS,
    NUM_EXPERTS,
    arrays_of,
    assert_mean_of,
    usage_of,
)
from tracer.analysis.measures.inputs import Asked, make_inputs
from tracer.analysis.measures.nulls import NULLS
from tracer.analysis.measures.redraw import Redraw
from tracer.analysis.sql import connect


def test_by_hand(make_lake, request_of, take):
    """Requests choose {0, 1}, {0, 1}, {2, 3} and {2, 3}; expert 4 never is.

    Shares of 0 and 1 are 1/2, 1/2, 0, 0: they correlate by 1, and by -1 with those of 2 and 3.
    """
    requests = [
        request_of(f"q{n}", "law", [{3: {n // 2 * 2: 0.6, n // 2 * 2 + 1: 0.4}}]) for n in range(4)
    ]
    lake = make_lake(requests, num_experts=5)
    layer = (3, *(pytest.approx(value) for value in (1, -1, 2)))
    assert take(lake, "expert_clusters").rows() == [
        (3, 0, 0, 2, 0.25, 0.5, *layer),
        (3, 1, 0, 2, 0.25, 0.5, *layer),
        (3, 2, 2, 2, 0.25, 0.5, *layer),
        (3, 3, 2, 2, 0.25, 0.5, *layer),
        (3, 4, 4, 1, 0.0, 0.0, *layer),
    ]
    apart = take(lake, "expert_clusters", least_correlation=1.1)
    assert apart["cluster_id"].to_list() == [0, 1, 2, 3, 4]
    assert apart["contrast"].to_list() == [None] * 5


def test_a_chain_of_experts_is_one_cluster(make_lake, request_of, take):
    """Request n chooses {n, n + 1}: of 40 experts, neighbours correlate by 0.47, others below 0.

    With R = 39 requests of which two choose an expert and one both: (1 - 4 / R) / (2 - 4 / R).
    """
    requests = [request_of(f"q{n}", "law", [{3: {n: 0.6, n + 1: 0.4}}]) for n in range(39)]
    lake = make_lake(requests, num_experts=40)
    found = take(lake, "expert_clusters", least_correlation=0.4)
    assert found["cluster_id"].to_list() == [0] * 40
    assert found["cluster_size"].to_list() == [40] * 40
    assert take(lake, "expert_clusters")["num_clusters"][0] == 38  # the ends correlate by 0.7


def clusters(counts, least):
    """(cluster by expert, mean within, mean between), by joining until nothing changes."""
    share = counts / counts.sum(1, keepdims=True)
    (varies,) = np.nonzero(share.std(0) > 1e-9)
    correlation = np.full((counts.shape[1],) * 2, np.nan)
    correlation[np.ix_(varies, varies)] = np.corrcoef(share[:, varies].T)
    cluster = np.arange(counts.shape[1])
    for _ in cluster:
        for one, two in np.argwhere(correlation >= least):
            cluster[[one, two]] = min(cluster[one], cluster[two])
    upper = np.triu(~np.isnan(correlation), 1)
    same = cluster[:, None] == cluster
    within, between = correlation[upper & same], correlation[upper & ~same]
    return (
        cluster,
        within.mean() if len(within) else np.nan,
        between.mean() if len(between) else np.nan,
    )


@pytest.mark.parametrize(("tokens", "least"), [("all", 0.5), ("all", 0.1), ("generated", 0.3)])
def test_beside_numpy(made, take, tokens, least):
    lake, requests = made
    usage = usage_of(arrays_of(requests, tokens))
    found = take(lake, "expert_clusters", tokens=tokens, least_correlation=least)
    for layer in LAYERS:
        rows = found.filter(layer_id=layer)
        cluster, within, between = clusters(usage.counts[layer], least)
        load = usage.counts[layer].sum(0) / usage.counts[layer].sum()
        assert rows["cluster_id"].to_list() == cluster.tolist()
        same = cluster[:, None] == cluster
        assert rows["cluster_size"].to_list() == same.sum(1).tolist()
        assert rows["num_clusters"].to_list() == [len(set(cluster))] * NUM_EXPERTS
        np.testing.assert_allclose(rows["load"], load, atol=1e-12)
        np.testing.assert_allclose(rows["cluster_load"], same @ load, atol=1e-12)
        means = rows.select("within_correlation", "between_correlation", "contrast").row(0)
        expected = [within, between, within - between]
        means = np.array([np.nan if mean is None else mean for mean in means])
        np.testing.assert_allclose(means, expected, rtol=0, atol=1e-9)


def teams(request_of):
    """12 requests of 6 tokens: half choose among 0 to 2, half among 3 to 5, sometimes others."""
    rng = np.random.default_rng(0)
    requests = []
    for number in range(12):
        tokens = []
        for _ in range(6):
            score = rng.normal(size=8)
            score[:3] += 2 * (number % 2 == 0)
            score[3:6] += 2 * (number % 2 == 1)
            one, two = np.argsort(-score)[:2].tolist()
            tokens.append({3: {one: 0.6, two: 0.4}})
        requests.append(request_of(f"q{number:02}", "law", tokens))
    return requests


def test_teams_are_told_from_choices_dealt_anew(make_lake, request_of, take):
    """The means by chance are those of 300 deals in NumPy, which shuffle a list of all choices."""
    requests = teams(request_of)
    found = take(make_lake(requests), "expert_clusters", draws=29)
    usage = usage_of(arrays_of(requests))
    counts = usage.counts[3].astype(int)
    assert found["cluster_id"].to_list()[:6] == [0, 0, 0, 3, 3, 3]
    rng = np.random.default_rng(0)
    simulated = []
    for _ in range(300):
        choices = rng.permutation(np.repeat(np.arange(8), counts.sum(0)))
        drawn = [np.bincount(part, minlength=8) for part in np.split(choices, 12)]
        cluster = clusters(np.array(drawn), 0.5)[0]
        simulated.append([len(set(cluster)), *(cluster[:, None] == cluster).sum(1)])
    simulated = np.array(simulated, dtype=float)
    assert_mean_of(found["num_clusters_chance"], simulated[:, :1], 29)
    assert_mean_of(found["cluster_size_chance"], simulated[:, 1:], 29)
    assert (found["num_clusters"] < found["num_clusters_chance_low"]).all()
    assert (found["contrast"] > found["contrast_chance_high"]).all()


def test_the_null_keeps_loads_and_lengths_and_breaks_who_goes_together(make_lake, request_of):
    """Sums over requests and over experts stay, gate weights too; team mates' shares lose 0.5."""
    lake = make_lake(teams(request_of))
    con = connect(lake)
    make_inputs(con, ("expert_usage",), Asked(lake.run(), "all", {}), keep=True)
    redraw = Redraw(con)

    def table(column):
        found = con.sql("from usage_entries").pl()
        made = np.zeros((12, 8))
        names = found["origin"].str.slice(1).cast(int).to_numpy()
        made[names, found["expert_id"].to_numpy()] = found[column].to_numpy()
        return made

    recorded, weights = table("num_choices"), table("weight_sum")
    assert np.corrcoef(recorded.T)[0, 1] > 0.5
    mates = []
    for seed in range(20):
        NULLS["dealt"](redraw, np.random.default_rng(seed))
        drawn = table("num_choices")
        assert (drawn.sum(0) == recorded.sum(0)).all()
        assert (drawn.sum(1) == recorded.sum(1)).all()
        np.testing.assert_allclose(table("weight_sum").sum(0), weights.sum(0))
        mates.append(np.corrcoef(drawn.T)[0, 1])
    assert abs(np.mean(mates)) < 0.3
    assert np.std(mates) > 0.1
