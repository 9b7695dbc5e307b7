"""The checkpoint carries the plant that planted.json claims, recomputed without tracer."""

import json

import numpy as np
import planted_checks
import pytest
from planted_checks import ARCHITECTURES, committee_of, logit_table, ranks_of, read_truth

EXPECTED_FILES = {
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "planted.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
}


@pytest.fixture(params=ARCHITECTURES)
def model(request, demo_models):
    return demo_models[request.param]


@pytest.fixture(scope="session")
def other_seed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("seed") / "one"
    assert planted_checks.write_model(folder, seed=1).returncode == 0
    return folder


def test_files_and_size(model):
    files = list(model.iterdir())
    assert {file.name for file in files} == EXPECTED_FILES
    assert sum(file.stat().st_size for file in files) < 20e6


def test_header_of_truth(model):
    truth = read_truth(model)
    config = json.loads((model / "config.json").read_text())
    assert truth["architecture"] == model.name == config["model_type"]
    assert (truth["seed"], truth["num_experts"], truth["top_k"]) == (0, 16, 4)
    assert config["num_experts_per_tok"] == 4
    assert config["max_position_embeddings"] >= 4096
    first = 1 if model.name == "deepseek_v2" else 0
    assert truth["moe_layers"] == list(range(first, first + 4))
    assert config["num_hidden_layers"] == first + 4
    assert len(truth["domains"]) == 9
    assert sorted(truth["layers"]) == [str(layer_id) for layer_id in truth["moe_layers"]]


def test_logits_are_in_the_weights(model):
    truth = read_truth(model)
    for layer_id, table in logit_table(model).items():
        for domain, row in table.items():
            np.testing.assert_allclose(
                row, truth["layers"][str(layer_id)]["logits"][domain], rtol=0, atol=1e-3
            )


def test_ranks_and_committees_follow_from_the_weights(model):
    truth = read_truth(model)
    sizes = []
    for layer_id, table in logit_table(model).items():
        layer = truth["layers"][str(layer_id)]
        rows = [ranks_of(row) for row in table.values()]
        assert layer["ranks"] == {
            domain: {str(expert): rank for expert, rank in row.items()}
            for domain, row in zip(table, rows, strict=True)
        }
        assert layer["committee"] == committee_of(rows)
        assert layer["domain_experts"] == {
            domain: [expert for expert in row if expert not in layer["committee"]]
            for domain, row in zip(table, rows, strict=True)
        }
        for expert in set(range(16)) - set(layer["committee"]):
            assert sum(expert in row for row in rows) <= 3
        sizes.append(len(layer["committee"]))
    assert sorted(sizes) == [1, 2, 3, 4]


def test_neutral_tokens_favour_every_member_alike(model):
    truth = read_truth(model)
    tensors = planted_checks.load_file(model / "model.safetensors")
    embeddings = tensors["model.embed_tokens.weight"]
    planted = {token for ids in truth["domain_tokens"].values() for token in ids}
    neutral = embeddings[[token for token in range(len(embeddings)) if token not in planted]]
    for layer_id, layer in truth["layers"].items():
        logits = (neutral @ tensors[f"model.layers.{layer_id}.mlp.gate.weight"].T).mean(0)
        members = logits[layer["committee"]]
        assert np.ptp(members) < 1e-3
        assert members.min() > np.delete(logits, layer["committee"]).max() + 1


def test_same_seed_same_bytes(model, tmp_path):
    assert planted_checks.write_model(tmp_path / "again", model.name).returncode == 0
    for file in model.iterdir():
        assert (tmp_path / "again" / file.name).read_bytes() == file.read_bytes(), file.name


def test_another_seed_is_another_plant(demo_models, other_seed):
    one, other = read_truth(demo_models["olmoe"])["layers"], read_truth(other_seed)["layers"]
    assert sum(one[layer]["committee"] == other[layer]["committee"] for layer in one) <= 1
    sizes = [len(layer["committee"]) for layer in other.values()]
    assert sorted(sizes) == [1, 2, 3, 4]


def test_weights_differ_by_seed(demo_models, other_seed):
    name = "model.safetensors"
    assert (demo_models["olmoe"] / name).read_bytes() != (other_seed / name).read_bytes()


def test_ties_and_dominance_of_the_check_itself():
    # First everywhere dominates all; equal scores are both members; 7 of 9 is too few.
    strict = [{0: 1, 1: 2, 2: 3, 3: 4}] * 9
    assert committee_of(strict) == [0]
    swapped = [{0: 1, 1: 2, 2: 3, 3: 4}] * 4 + [{1: 1, 0: 2, 2: 3, 3: 4}] * 4
    assert committee_of(swapped) == [0, 1, 2]
    seldom = [{0: 1, 1: 2, 2: 3, 3: 4}] * 7 + [{4: 1, 1: 2, 2: 3, 3: 4}] * 2
    assert committee_of(seldom) == [1]
