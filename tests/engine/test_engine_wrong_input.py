"""Wrong input to a capture: one clear error, the right exit code, nothing left behind."""

import json

import polars as pl
import pytest

pytestmark = pytest.mark.engine


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "p.jsonl").write_text('{"prompt": "energy of a field"}\n')
    return tmp_path


@pytest.fixture
def refused(engine, folder):
    """Runs a capture that must fail and leave no lake."""

    def check(exit_code, *words, model, dataset="p.jsonl", options=()):
        done = engine.run(
            "capture", "--model", model, "--dataset", dataset, "--lake", "lake",
            "--enforce-eager", *options, cwd=folder,
        )  # fmt: skip
        assert done.exit_code == exit_code, done
        assert done.stdout == ""
        lines = done.stderr.splitlines()
        last = [line for line in lines if line.startswith(("Error: ", "Hint: "))]
        assert lines[-len(last) :] == last
        assert [line.split(":")[0] for line in last] in (["Error"], ["Error", "Hint"])
        for word in words:
            assert word in done.stderr
        assert not (folder / "lake").exists()

    return check


@pytest.fixture(scope="session")
def dense_model(tmp_path_factory, planted_model):
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("models") / "dense"
    demo = planted_model("olmoe")
    vocab_size = json.loads((demo / "config.json").read_text())["vocab_size"]
    config = LlamaConfig(
        vocab_size=vocab_size, hidden_size=128, intermediate_size=64, num_hidden_layers=1,
        num_attention_heads=4, max_position_embeddings=256,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    for path in demo.glob("*token*"):
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def test_no_such_model(refused, folder):
    refused(2, "no model './nowhere'", model="./nowhere")
    refused(2, "no model 'nobody/nothing'", model="nobody/nothing")
    (folder / "empty").mkdir()
    refused(2, "no model", model=folder / "empty")


def test_a_dense_model(refused, dense_model):
    refused(4, "is a dense model", "Mixture-of-Experts", model=dense_model)


def test_a_dataset_without_the_column(refused, folder, planted_model):
    (folder / "p.jsonl").write_text('{"text": "x"}\n')
    model = planted_model("olmoe")
    refused(2, "no column 'prompt'", "it has: text", "--prompt-field", model=model)


def test_an_empty_dataset(refused, folder, planted_model):
    (folder / "p.jsonl").write_text("")
    refused(2, "has no rows", model=planted_model("olmoe"))


def test_a_dataset_that_is_not_there(refused, planted_model):
    refused(2, "none.jsonl", model=planted_model("olmoe"), dataset="none.jsonl")


def test_a_prompt_longer_than_the_model_allows(refused, folder, planted_model):
    rows = [{"id": n, "prompt": "energy " * length} for n, length in (("a", 3), ("b", 90))]
    (folder / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = ("--max-model-len", "64")
    model = planted_model("olmoe")
    refused(2, "1 prompt longer", "row 'b'", "--too-long", model=model, options=options)


def test_an_option_vllm_does_not_know(refused, planted_model):
    refused(2, "--no-such-option", model=planted_model("olmoe"), options=["--no-such-option"])


@pytest.mark.parametrize(
    ("option", "words"),
    [
        (["--enable-expert-parallel"], "expert parallelism"),
        (["--decode-context-parallel-size", "2"], "decode context parallelism"),
    ],
)
def test_layouts_that_were_not_proved(refused, planted_model, option, words):
    refused(4, words, "--allow-unproved-layout", model=planted_model("olmoe"), options=option)


def test_what_one_offline_engine_cannot_do(refused, planted_model):
    model = planted_model("olmoe")
    options = ["--data-parallel-size", "2", "--allow-unproved-layout"]
    refused(4, "drives one engine", "--data-parallel-size at 1", model=model, options=options)
    refused(2, "names no adapter", "--lora DIR", model=model, options=["--enable-lora"])


def test_samples_that_would_all_be_the_same(refused, planted_model):
    model = planted_model("olmoe")
    refused(2, "3 samples", "--temperature", model=model, options=["--samples", "3"])
    refused(2, "stops nothing", model=model, options=["--stop", ""])


def test_a_row_called_like_a_sample(refused, folder, planted_model):
    (folder / "p.jsonl").write_text('{"id": "a", "prompt": "x"}\n{"id": "a#1", "prompt": "y"}\n')
    options = ["--samples", "2", "--temperature", "1"]
    refused(2, "row 'a#1'", "sample 1 of row 'a'", model=planted_model("olmoe"), options=options)


def test_an_adapter_that_is_none(refused, folder, planted_model):
    (folder / "adapter").mkdir()
    options = ["--lora", "adapter"]
    refused(2, "no LoRA adapter in adapter", model=planted_model("olmoe"), options=options)


def test_an_adapter_on_a_cpu(refused, folder, planted_model):
    """vLLM itself would fail in the first step, with words about Triton."""
    (folder / "adapter").mkdir()
    (folder / "adapter" / "adapter_config.json").write_text('{"r": 8}')
    options = ["--lora", "adapter"]
    refused(4, "no kernel", "merge the adapter", model=planted_model("olmoe"), options=options)


def test_a_folder_that_is_something_else(engine, folder, planted_model):
    (folder / "thesis").mkdir()
    (folder / "thesis" / "chapter.tex").write_text("x")
    done = engine.run(
        "capture", "--model", planted_model("olmoe"), "--dataset", "p.jsonl",
        "--lake", "thesis", "--enforce-eager", cwd=folder,
    )  # fmt: skip
    assert done.exit_code == 2
    assert "not empty and not a trace lake" in done.stderr
    assert [path.name for path in (folder / "thesis").iterdir()] == ["chapter.tex"]


def test_too_long_rows_can_be_skipped_or_cut(engine, folder, planted_model):
    """Of 3 and 90 words at a length of 64: skip keeps one request, truncate cuts to 63 tokens."""
    rows = [{"id": n, "prompt": "energy " * length} for n, length in (("a", 3), ("b", 90))]
    (folder / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for rule in ("skip", "truncate"):
        done = engine.run(
            "capture", "--model", planted_model("olmoe"), "--dataset", "p.jsonl", "--lake", "lake",
            "--run-id", rule, "--too-long", rule, "--max-model-len", "64", "--max-tokens", "4",
            "--enforce-eager", "--format", "json", cwd=folder,
        )  # fmt: skip
        assert done.exit_code == 0, done.stderr
    requests = {
        (row["run_id"], row["row_id"]): row
        for row in pl.read_delta(str(folder / "lake" / "requests")).to_dicts()
    }
    skipped = requests["skip", "b"]
    assert (skipped["status"], skipped["finish_reason"]) == ("skipped", "too_long")
    assert (skipped["num_prompt_tokens"] > 63, skipped["num_generated_tokens"]) == (True, 0)
    cut = requests["truncate", "b"]
    assert (cut["status"], cut["num_prompt_tokens"], cut["num_generated_tokens"]) == (
        "complete",
        63,
        1,
    )
    assert dict(cut["labels"]) == {"truncated_from": str(skipped["num_prompt_tokens"])}
