"""Audits against the outputs of the authors' COMMITTEEAUDIT code, see tests/golden/README.md."""

import csv
import io
import json
import math
from collections import defaultdict
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tracer.analysis.audit import audit
from tracer.report.audit_text import render_csv

pytestmark = pytest.mark.golden
FOLDER = Path(__file__).parents[1] / "golden"


@pytest.fixture(params=["olmoe_like", "presence_half"])
def case(request, make_lake, request_of):
    """(lake, settings, folder) of a golden case; every token is a prompt token."""
    folder = FOLDER / request.param
    settings = json.loads((folder / "run.json").read_text())
    tokens = defaultdict(lambda: defaultdict(dict))
    for row in pq.read_table(folder / "routing.parquet").to_pylist():
        weights = dict(zip(row["expert_ids"], row["gate_weights"], strict=True))
        tokens[row["request_id"]][row["position"]][row["layer_id"]] = weights
    requests = [
        request_of(
            row["request_id"],
            row["domain"],
            [token for _, token in sorted(tokens[row["request_id"]].items())],
        )
        for row in pq.read_table(folder / "requests.parquet").to_pylist()
    ]
    assert all(len(r.prompt) == max(tokens[r.request_id]) + 1 for r in requests)
    lake = make_lake(requests, num_experts=settings["num_experts"], top_k=settings["top_k"])
    return lake, settings, folder


def read_csv(text):
    return list(csv.DictReader(io.StringIO(text)))


def remapped(mode):
    """Domains that change nothing, which makes the audit answer from `usage`."""
    return {f"d{i}": f"d{i}" for i in range(9)} if mode else None


@pytest.mark.parametrize("from_usage", [False, True])
def test_reference_mode_agrees_with_the_final_table(case, from_usage):
    """Committees equal, other numbers within the tolerance of tests/golden/README.md."""
    lake, settings, folder = case
    found = audit(
        lake,
        mode="reference",
        min_presence=settings["presence_ratio"],
        domains=remapped(from_usage),
    )
    expected_text = (folder / "expected_reference.csv").read_text()
    expected, actual = read_csv(expected_text), read_csv(render_csv(found))

    assert [row["Layer"] for row in actual] == [row["Layer"] for row in expected]
    for ours, theirs in zip(actual, expected, strict=True):
        assert set(ours["Committee"].split(", ")) == set(theirs["Committee"].split(", "))
        assert ours["Size"] == theirs["Size"]
        assert float(ours["Avg_mu"]) == pytest.approx(float(theirs["Avg_mu"]), abs=0.01)
        assert float(ours["Avg_sigma_sq"]) == pytest.approx(float(theirs["Avg_sigma_sq"]), abs=0.01)
        assert float(ours["Coverage"]) == pytest.approx(float(theirs["Coverage"]), abs=2e-4)
        assert float(ours["Ratio"]) == pytest.approx(float(theirs["Ratio"]), rel=0.005)
    assert found.num_experts_inferred == 64


def test_reference_mode_agrees_with_the_lists(case):
    """Same experts in the same order; values within one unit of the fourth decimal."""
    lake, settings, folder = case
    found = audit(lake, mode="reference", min_presence=settings["presence_ratio"])
    lists = defaultdict(dict)
    for c in found.contributions:
        if c.rank <= found.rank_cutoff:
            lists[c.domain, c.layer_id][c.rank] = (c.expert_id, c.contribution)
    expected = read_csv((folder / "expected_topk_table.csv").read_text())

    assert len(lists) == len(expected)
    for row in expected:
        ours = [entry for _, entry in sorted(lists[row["domain"], int(row["idx"])].items())]
        assert [expert for expert, _ in ours] == json.loads(f"[{row['topk_indices']}]")
        values = json.loads(f"[{row['topk_values']}]")
        assert [value for _, value in ours] == pytest.approx(values, abs=1.01e-4)


@pytest.mark.parametrize("from_usage", [False, True])
def test_gate_mode_agrees_with_a_plain_recount(case, from_usage):
    """ECI on all prompt tokens, ranks, committee and coverage recounted from the golden rows."""
    lake, settings, folder = case
    found = audit(lake, min_presence=settings["presence_ratio"], domains=remapped(from_usage))
    domain_of = {
        row["request_id"]: row["domain"]
        for row in pq.read_table(folder / "requests.parquet").to_pylist()
    }
    sums = defaultdict(lambda: defaultdict(float))
    tokens = defaultdict(int)
    for row in pq.read_table(folder / "routing.parquet").to_pylist():
        cell = (row["layer_id"], domain_of[row["request_id"]])
        tokens[cell] += 1
        for expert, weight in zip(row["expert_ids"], row["gate_weights"], strict=True):
            sums[cell][expert] += weight
    k, domains = settings["top_k"], sorted(set(domain_of.values()))
    threshold = math.ceil(settings["presence_ratio"] * len(domains))

    for layer in found.layers:
        ranks, listed, every = defaultdict(dict), defaultdict(float), defaultdict(float)
        for domain in domains:
            cell = sums[layer.layer_id, domain]
            order = sorted(cell, key=lambda expert: -cell[expert])
            for place, expert in enumerate(order, 1):
                eci = cell[expert] / tokens[layer.layer_id, domain]
                every[expert] += eci / len(domains)
                if place <= k:
                    ranks[expert][domain] = place
                    listed[expert] += eci / len(domains)
        passed = [expert for expert in ranks if len(ranks[expert]) >= threshold]
        if not passed:
            most = max(map(len, ranks.values()))
            passed = [expert for expert in ranks if len(ranks[expert]) == most]
        point = {}
        for expert in passed:
            own = [ranks[expert].get(domain, k + 1) for domain in domains]
            mean = sum(own) / len(own)
            point[expert] = (mean, sum((rank - mean) ** 2 for rank in own) / len(own))
        members = {
            a
            for a in passed
            if not any(
                point[b][0] <= point[a][0] + 1e-12
                and point[b][1] <= point[a][1] + 1e-12
                and (point[b][0] < point[a][0] - 1e-12 or point[b][1] < point[a][1] - 1e-12)
                for b in passed
            )
        }
        coverage = sum(listed[expert] for expert in members) / sum(listed.values())
        size, num_experts = len(members), settings["num_experts"]
        assert set(layer.committee) == members
        assert layer.coverage == pytest.approx(coverage, abs=1e-9)
        assert layer.influence_density == pytest.approx(
            coverage / size / ((1 - coverage) / (num_experts - size)), rel=1e-9
        )
        vector = [*every.values(), *[0.0] * (num_experts - len(every))]
        differences = sum(abs(a - b) for a in vector for b in vector)
        assert layer.gini == pytest.approx(differences / (2 * num_experts * sum(vector)))
