"""Every token is there, once, as the engine itself returned it; and readers agree."""

import duckdb
import polars as pl
import pytest

pytestmark = pytest.mark.engine


def test_every_token_has_one_row_per_layer(captured):
    """234 prompts with 16 generated tokens: sum(prompt + 16 - 1) x 4 layers rows, no key twice."""
    run = captured("olmoe")
    assert len(run.outputs) == 234
    tokens = sum(len(o["prompt"]) + len(o["generated"]) - 1 for o in run.outputs.values())
    assert all(len(o["generated"]) == 16 for o in run.outputs.values())

    ((rows, keys),) = duckdb.sql(
        "select count(*), count(distinct (request_id, position, layer_id))"
        f" from read_parquet('{run.lake}/routing/**/*.parquet')"
    ).fetchall()

    assert rows == keys == tokens * 4
    assert run.summary["num_rows"] == rows
    assert run.summary["num_requests"] == 234


def test_token_ids_and_positions_are_those_vllm_returned(captured):
    run = captured("olmoe")
    tokens = pl.read_delta(str(run.lake / "tokens")).sort("request_id", "position")
    stored = {
        request: (rows["position"].to_list(), rows["token_id"].to_list(), rows["phase"].to_list())
        for (request,), rows in tokens.group_by(["request_id"], maintain_order=True)
    }
    expected = {}
    for request, output in run.outputs.items():
        ids = output["prompt"] + output["generated"]
        phases = ["prompt"] * len(output["prompt"]) + ["generated"] * len(output["generated"])
        expected[request] = (list(range(len(ids))), ids, phases)
    assert stored == expected


def test_routing_rows_stop_before_the_last_sampled_token(captured):
    run = captured("olmoe")
    last = dict(
        pl.scan_delta(str(run.lake / "routing"))
        .group_by("request_id")
        .agg(pl.col("position").max())
        .collect()
        .rows()
    )
    assert last == {
        request: len(o["prompt"]) + len(o["generated"]) - 2 for request, o in run.outputs.items()
    }


def test_requests_carry_domain_and_lengths(captured):
    run = captured("olmoe")
    requests = pl.read_delta(str(run.lake / "requests"))
    assert requests["status"].unique().to_list() == ["complete"]
    assert requests["domain"].n_unique() == 9
    lengths = {
        row["request_id"]: (row["num_prompt_tokens"], row["num_generated_tokens"])
        for row in requests.to_dicts()
    }
    assert lengths == {r: (len(o["prompt"]), len(o["generated"])) for r, o in run.outputs.items()}


def test_the_run_says_what_its_weights_mean(captured):
    (run,) = pl.read_delta(str(captured("qwen3_moe").lake / "runs")).to_dicts()
    assert run["status"] == "complete"
    assert run["architecture"] == "Qwen3MoeForCausalLM"
    assert (run["num_experts"], run["top_k"], run["moe_layers"]) == (16, 4, [0, 1, 2, 3])
    assert (run["scoring_function"], run["renormalised"]) == ("softmax", True)
    assert (run["weight_convention"], run["routed_scaling_factor"]) == ("unscaled", 1.0)
    assert (run["weight_precision"], run["dtype"]) == ("f32", "float32")
    assert run["num_shared_experts"] == 0
    assert run["engine_runner"].endswith("ModelRunner")


def test_deepseek_leaves_the_dense_layer_out(captured):
    run = captured("deepseek_v2")
    (row,) = pl.read_delta(str(run.lake / "runs")).to_dicts()
    assert row["moe_layers"] == [1, 2, 3, 4]
    assert row["num_shared_experts"] == 2
    layers = pl.scan_delta(str(run.lake / "routing")).select("layer_id").unique().collect()
    assert sorted(layers["layer_id"]) == [1, 2, 3, 4]
