"""Capture on real vLLM recovers the planted committees, in every architecture and token scope."""

import json

import pytest

from tracer.api import open_lake

pytestmark = pytest.mark.engine

ARCHITECTURES = ["olmoe", "qwen3_moe", "deepseek_v2"]


def planted_committees(model):
    truth = json.loads((model / "planted.json").read_text())
    return {int(layer): sorted(found["committee"]) for layer, found in truth["layers"].items()}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("tokens", ["prompt", "generated", "all"])
def test_audit_names_exactly_the_planted_committees(captured, architecture, tokens):
    run = captured(architecture)
    audit = open_lake(run.lake).audit(tokens=tokens)
    found = {layer.layer_id: sorted(layer.committee) for layer in audit.layers}
    assert found == planted_committees(run.model)


def test_bfloat16_recovers_the_plant_too(captured):
    """The defaults of the demo: bfloat16 compute, weights stored in bfloat16 precision."""
    run = captured("olmoe", "--dtype", "bfloat16")
    audit = open_lake(run.lake).audit()
    found = {layer.layer_id: sorted(layer.committee) for layer in audit.layers}
    assert found == planted_committees(run.model)


def test_ranks_of_listed_experts_are_the_planted_ones(captured):
    """Not only who is in the committee: each domain's ranking is as designed."""
    run = captured("olmoe")
    truth = json.loads((run.model / "planted.json").read_text())["layers"]
    audit = open_lake(run.lake).audit()
    for layer, found in truth.items():
        committee = set(found["committee"])
        for domain, ranks in found["ranks"].items():
            measured = {
                c.expert_id: c.rank
                for c in audit.contributions
                if (c.layer_id, c.domain) == (int(layer), domain) and c.expert_id in committee
            }
            planted = {int(e): r for e, r in ranks.items() if int(e) in committee}
            assert {e: r for e, r in measured.items() if r <= 4} == planted, (layer, domain)
