"""What a capture records beside the choices, against the router input of the same forward."""

import polars as pl
import pytest
import torch

from tests.engine.architectures import ARCHITECTURES, build
from tests.engine.routing import agreement, rows_of
from tests.engine.routing_definitions import logits as router_logits
from tests.engine.test_engine_architectures import OPTIONS, WITNESS

pytestmark = pytest.mark.engine

TOP_M = 6
SCORES = {
    "olmoe": lambda logits, _: logits.softmax(-1),
    "gpt_oss": lambda logits, _: logits.softmax(-1),
    "deepseek_v3": lambda logits, router: logits.sigmoid() + router["selection_bias"],
}


def lists(lake, table, name):
    """(request_id, layer_id) -> [n, width] of one list column, by position."""
    frame = pl.read_delta(str(lake / table)).sort("request_id", "layer_id", "position")
    return {
        key: torch.tensor(rows[name].to_list())
        for key, rows in frame.group_by(["request_id", "layer_id"], maintain_order=True)
    }


@pytest.mark.parametrize("model_type", SCORES)
def test_candidates_logits_and_routers_are_the_models(engine, planted_model, tmp_path, model_type):
    architecture = next(a for a in ARCHITECTURES if a.model_type == model_type)
    routers = build(architecture, tmp_path / "model", planted_model("olmoe"))
    done = engine.run(
        tmp_path, "--model", tmp_path / "model", "--lake", tmp_path / "lake", *OPTIONS,
        "--top-m", str(TOP_M), "--router-logits", "--router-weights", code=WITNESS,
    )  # fmt: skip
    assert done.exit_code == 0, done.stderr[-4000:]

    stored = {
        row["layer_id"]: row for row in pl.read_delta(str(tmp_path / "lake/routers")).to_dicts()
    }
    assert stored.keys() == routers.keys()
    for layer, router in routers.items():
        row = stored[layer]
        shape = (row["num_experts"], row["hidden_size"])
        assert torch.equal(torch.tensor(row["weight"]).reshape(shape), router["weight"])
        for role in ("bias", "selection_bias"):
            if role in router:
                assert torch.equal(torch.tensor(row[role]), router[role])
            else:
                assert row[role] is None

    inputs = torch.load(tmp_path / "gate_inputs.pt")["inputs"]
    kept = lists(tmp_path / "lake", "router_logits", "logits")
    ids = lists(tmp_path / "lake", "candidates", "expert_ids")
    scores = lists(tmp_path / "lake", "candidates", "scores")
    assert kept.keys() == ids.keys() == rows_of(tmp_path / "lake").keys()
    for (request, layer), found in kept.items():
        expected = router_logits(inputs[layer][request], routers[layer])
        # Half a unit in the last of float16's 11 bits, and float32 sums in another order.
        assert torch.allclose(found, expected, rtol=2**-11, atol=1e-5)
        by_score = SCORES[model_type](expected, routers[layer]).topk(TOP_M)
        same, difference = agreement(
            (ids[request, layer], scores[request, layer]), (by_score.indices, by_score.values)
        )
        assert same.all()
        assert difference <= 1e-5
        assert (scores[request, layer].diff(dim=-1) <= 0).all()


def test_extras_leave_the_routing_as_it_is(engine, captured, tmp_path):
    """The same rows as a plain capture, whose choices are the first k candidates."""
    plain = captured("olmoe")
    done = engine.run(
        "capture", "--model", plain.model, "--dataset", "demo", "--lake", tmp_path / "lake",
        "--run-id", "r", "--max-tokens", "16", "--ignore-eos", "--enforce-eager",
        "--dtype", "float32", "--weight-precision", "f32",
        "--top-m", str(TOP_M), "--router-logits", "--router-weights",
    )  # fmt: skip
    assert done.exit_code == 0, done.stderr[-4000:]
    rows, expected = rows_of(tmp_path / "lake"), rows_of(plain.lake)
    ids = lists(tmp_path / "lake", "candidates", "expert_ids")
    assert rows.keys() == expected.keys()
    for key, row in rows.items():
        same, difference = agreement(row, expected[key])
        assert same.all()
        assert difference <= 1e-5
        assert torch.equal(ids[key][:, :4], row[0])


def test_a_plain_capture_has_no_extra_tables(captured):
    lake = captured("olmoe").lake
    assert not {"candidates", "router_logits", "routers"} & {path.name for path in lake.iterdir()}
