"""What a run is called and remembered by, and which settings make no sense together."""

import json
from types import SimpleNamespace

import pytest

from tracer.capture.engine import merge_models
from tracer.capture.manifest import CaptureRequest, folder_digest, parallel_layout
from tracer.capture.prompts import Prompt
from tracer.capture.record_options import RecordOptions
from tracer.capture.request_rows import aborted_row, finished_row, was_cut_short
from tracer.capture.unproved import refuse_unproved_layout
from tracer.errors import InputError, UnsupportedModelError
from tracer.records import DatasetRow

STAGE = {
    "records": True, "rank": 0, "runner": "R", "num_experts": 8, "top_k": 2,
    "scoring_function": "softmax", "renormalised": True, "routed_scaling_factor": 1.0,
    "weights_scaled": False,
}  # fmt: skip


def test_options_that_are_not_used_do_not_rename_a_run():
    """The settings of old stand there alone; every new one changes them."""
    plain = json.loads(CaptureRequest("m").to_options())
    assert set(plain) == {
        "chat_template", "engine_options", "ignore_eos", "store_text", "temperature", "too_long"
    }  # fmt: skip
    changed = [
        {"samples": 2}, {"stop": ["x"]}, {"top_m": 9}, {"router_logits": True},
        {"router_weights": True}, {"allow_unproved_layout": True},
    ]  # fmt: skip
    for setting in changed:
        (name,) = setting
        assert json.loads(CaptureRequest("m", **setting).to_options()) == {**plain, **setting}, name


def test_an_adapter_is_remembered_by_its_files(tmp_path):
    (tmp_path / "adapter_config.json").write_text('{"r": 4}')
    (tmp_path / "adapter_model.safetensors").write_bytes(b"one")
    first = json.loads(CaptureRequest("m", lora=tmp_path).to_options())["lora"]
    assert first == {"folder": str(tmp_path), "digest": folder_digest(tmp_path)}
    (tmp_path / "adapter_model.safetensors").write_bytes(b"two")
    assert json.loads(CaptureRequest("m", lora=tmp_path).to_options())["lora"] != first


def test_workers_are_told_what_to_record():
    request = CaptureRequest("m", weight_precision="f32", top_m=5, router_logits=True)
    assert request.record == RecordOptions("f32", 5, router_logits=True, router_weights=False)


def test_greedy_samples_are_refused():
    CaptureRequest("m", samples=4, temperature=0.1).check()
    CaptureRequest("m", samples=1).check()
    with pytest.raises(InputError, match="4 samples of each row at temperature 0 are 4 times"):
        CaptureRequest("m", samples=4).check()


def test_an_empty_stop_text_is_refused():
    with pytest.raises(InputError, match="stops nothing"):
        CaptureRequest("m", stop=["end", ""]).check()


def test_stages_of_a_pipeline_make_one_model():
    """Layers 0 and 1 in one worker, 2 and 4 in the other."""
    stages = [{**STAGE, "layer_ids": [2, 4], "rank": 1}, {**STAGE, "layer_ids": [0, 1]}]
    merged = merge_models(stages)
    assert merged["layer_ids"] == [0, 1, 2, 4]
    assert (merged["num_experts"], merged["top_k"]) == (8, 2)
    assert merge_models(stages[1:])["layer_ids"] == [0, 1]


@pytest.mark.parametrize(
    ("stages", "words"),
    [
        ([], "no worker of the engine records"),
        ([{**STAGE, "layer_ids": [0, 1]}, {**STAGE, "layer_ids": [1]}], "record the layers 1"),
        (
            [{**STAGE, "layer_ids": [0]}, {**STAGE, "layer_ids": [1], "top_k": 4}],
            "differ in top k: 2, 4",
        ),
        (
            [{**STAGE, "layer_ids": [0]}, {**STAGE, "layer_ids": [1], "renormalised": None}],
            "differ in renormalised: True, None",
        ),
    ],
)
def test_stages_that_contradict_each_other_are_refused(stages, words):
    with pytest.raises(UnsupportedModelError, match=words):
        merge_models(stages)


def test_a_layout_is_written_as_its_sizes():
    sizes = {"pipeline_parallel_size": 1, "data_parallel_size": 1, "enable_expert_parallel": False}
    plain = SimpleNamespace(tensor_parallel_size=1, **sizes)
    assert parallel_layout(plain) == "tp1"
    sizes |= {"pipeline_parallel_size": 2, "enable_expert_parallel": True}
    assert parallel_layout(SimpleNamespace(tensor_parallel_size=4, **sizes)) == "tp4-pp2-ep"


@pytest.mark.parametrize(
    ("setting", "hint"),
    [
        ({"enable_expert_parallel": True}, "--enable-expert-parallel off"),
        ({"decode_context_parallel_size": 2}, "--decode-context-parallel-size at 1"),
        ({"enable_dbo": True}, "--enable-dbo off"),
        ({"ubatch_size": 2}, "--ubatch-size off"),
        ({"kv_transfer_config": {"kv_connector": "x"}}, "--kv-transfer-config off"),
    ],
)
def test_layouts_that_were_not_proved_are_refused(setting, hint):
    plain = {"tensor_parallel_size": 2, "pipeline_parallel_size": 2, "data_parallel_size": 1}
    refuse_unproved_layout(SimpleNamespace(**plain))
    with pytest.raises(UnsupportedModelError, match="not been proved") as caught:
        refuse_unproved_layout(SimpleNamespace(**{**plain, **setting}))
    assert hint in caught.value.hint
    assert "--allow-unproved-layout" in caught.value.hint


def output(finish_reason, tokens=(7, 8), cached=None):
    completion = SimpleNamespace(token_ids=list(tokens), finish_reason=finish_reason, text="t")
    return SimpleNamespace(outputs=[completion], num_cached_tokens=cached)


@pytest.mark.parametrize("reason", ["abort", "error"])
def test_a_request_that_the_engine_gave_up_is_aborted(reason):
    prompt = Prompt("a#1", DatasetRow("a", "x", "law"), "x", [1, 2, 3], sample_index=1)
    assert was_cut_short(output(reason))
    row = aborted_row(prompt, output(reason), store_text=True)
    assert (row["status"], row["finish_reason"]) == ("aborted", reason)
    assert (row["request_id"], row["row_id"], row["sample_index"]) == ("a#1", "a", 1)
    assert (row["num_generated_tokens"], row["output_text"]) == (2, None)
    vanished = aborted_row(prompt, None, store_text=False)
    assert (vanished["status"], vanished["finish_reason"]) == ("aborted", "abort")
    assert vanished["num_generated_tokens"] == 0


@pytest.mark.parametrize(("capture", "status"), [(True, "complete"), (False, "uncaptured")])
def test_a_finished_request_is_complete_or_uncaptured(capture, status):
    prompt = Prompt("a", DatasetRow("a", "x", capture=capture), "x", [1, 2, 3])
    done = output("stop", cached=2)
    assert not was_cut_short(done)
    row = finished_row(prompt, done, store_text=False)
    assert (row["status"], row["cached_prefix_tokens"], row["num_prompt_tokens"]) == (status, 2, 3)
    assert (row["output_text"], row["prompt_text"]) == (None, None)
