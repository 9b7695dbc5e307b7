"""Every architecture: captured ids and weights against the model's routing definition.

The definition gets the router input of the very forward that was captured, so all ids must agree,
and weights within 1e-5. The agreement with Transformers end to end stands beside it: there the
router inputs differ by the order of float32 sums.

With TRACER_ARCHITECTURES=FILE the results are kept there; docs/write_architectures.py makes the
table in docs/architectures.md from it.
"""

import dataclasses
import json
import os
from pathlib import Path

import polars as pl
import pytest
import torch

from tests.engine.architectures import ARCHITECTURES, build
from tests.engine.routing import agreement, rows_of

pytestmark = pytest.mark.engine

WITNESS = Path(__file__).with_name("capture_gate_inputs.py")
OPTIONS = (
    "--dataset", "demo", "--run-id", "r", "--limit", "30", "--max-tokens", "8", "--ignore-eos",
    "--dtype", "float32", "--weight-precision", "f32", "--enforce-eager",
)  # fmt: skip


def compare(rows, factor, expected):
    """(ids that agree, of how many, largest weight difference).

    rows, expected: (request, layer) -> (ids [n, k], weights [n, k]); captured weights are
    multiplied by ``factor`` first.
    """
    assert rows.keys() == expected.keys()
    same, worst = [], 0.0
    for key, (ids, weights) in rows.items():
        equal, difference = agreement((ids, weights * factor), expected[key])
        same.append(equal)
        worst = max(worst, difference)
    every = torch.cat(same)
    return int(every.sum()), len(every), worst


def transformers_inputs(model_path, architecture, layers, tokens):
    """layer -> request -> router input [n, H] of Transformers' own forward."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float32).eval()
    seen, kept = {}, {layer: {} for layer in layers}
    for layer in layers:
        gate = model.get_submodule(f"model.layers.{layer}.{architecture.gate}")

        def keep(module, arguments, layer=layer):
            seen[layer] = arguments[0].reshape(-1, arguments[0].shape[-1]).float().clone()

        gate.register_forward_pre_hook(keep)
    with torch.no_grad():
        for request, sequence in tokens.items():
            model(torch.tensor([sequence]))
            for layer in layers:
                kept[layer][request] = seen[layer]
    return kept


def routed(architecture, routers, inputs):
    """(request, layer) -> (ids, weights) by definition."""
    return {
        (request, layer): architecture.definition(hidden, routers[layer])
        for layer, by_request in inputs.items()
        for request, hidden in by_request.items()
    }


def keep_result(row):
    path = os.environ.get("TRACER_ARCHITECTURES")
    if not path:
        return
    file = Path(path)
    results = json.loads(file.read_text()) if file.exists() else {}
    results[row.pop("name")] = row
    file.write_text(json.dumps(dict(sorted(results.items())), indent=1) + "\n")


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=lambda a: a.model_type)
def test_captured_routing_is_the_models(engine, planted_model, tmp_path, architecture):
    model = tmp_path / "model"
    routers = build(architecture, model, planted_model("olmoe"))
    done = engine.run(
        tmp_path, "--model", model, "--lake", tmp_path / "lake", *OPTIONS, code=WITNESS
    )
    assert done.exit_code == 0, done.stderr[-4000:]
    run = pl.read_delta(str(tmp_path / "lake" / "runs")).to_dicts()[0]
    facts = dataclasses.asdict(architecture.facts)
    assert {name: run[name] for name in facts} == facts
    assert run["moe_layers"] == list(routers)
    assert run["top_k"] == architecture.top_k
    assert run["num_experts"] == len(next(iter(routers.values()))["weight"])

    rows = rows_of(tmp_path / "lake")
    kept = torch.load(tmp_path / "gate_inputs.pt")
    factor = run["routed_scaling_factor"] if run["weight_convention"] == "unscaled" else 1.0
    agreed, count, worst = compare(rows, factor, routed(architecture, routers, kept["inputs"]))
    assert count == sum(map(len, kept["tokens"].values())) * len(routers)
    assert count > 1000
    assert len({tuple(sorted(ids)) for ids in rows[next(iter(rows))][0].tolist()}) > 1
    assert agreed == count
    assert worst <= 1e-5
    sums = torch.cat([weights.sum(-1) for _, weights in rows.values()])
    sums /= run["routed_scaling_factor"] if run["weight_convention"] == "scaled" else 1.0
    assert run["renormalised"] == bool(((sums - 1).abs() < 1e-5).all())

    inputs = transformers_inputs(model, architecture, list(routers), kept["tokens"])
    end_to_end, _, _ = compare(rows, factor, routed(architecture, routers, inputs))
    print(f"{architecture.name}: {agreed} of {count}, |dw| <= {worst:.1e}, end to end {end_to_end}")
    assert end_to_end > 0.9 * count
    keep_result(
        {"name": architecture.name, "class": run["architecture"], **facts, "compared": count,
         "agreed": agreed, "largest_difference": worst, "agreed_end_to_end": end_to_end,
         "note": architecture.note, "engine": f"{run['engine']} {run['engine_version']}"}
    )  # fmt: skip


def test_routing_that_the_engine_leaves_a_part_out_of_is_refused(engine, planted_model, tmp_path):
    """VLLM's CPU router ignores Ernie's selection bias: what it computes is not the model's."""
    ernie = next(a for a in ARCHITECTURES if a.model_type == "ernie4_5_moe")
    model = tmp_path / "model"
    build(dataclasses.replace(ernie, zero=()), model, planted_model("olmoe"))
    done = engine.run(
        tmp_path, "--model", model, "--lake", tmp_path / "lake", *OPTIONS, code=WITNESS
    )
    assert done.exit_code == 4
    assert "ignores the router's selection bias" in done.stderr
