"""With prefix caching the lake holds exactly the tokens that ran, and says how many did not.

What ran is taken from vLLM's scheduler itself. Routing is compared with a capture without caching.
"""

import json
import random
import signal

import pytest

from tests.engine.conftest import capture, dies_after_two_commits
from tests.engine.row_checks import (
    check_rows,
    check_same_routing,
    requests_of,
    routing_of,
    tokens_of,
)
from tracer.datasets import DatasetOptions, load_dataset
from tracer.store.lake import Lake

pytestmark = pytest.mark.engine

FLOAT32 = ("--dtype", "float32", "--weight-precision", "f32")
CACHING = ("--enable-prefix-caching", "--block-size", "32")
CASES = {
    "whole prompts": ["--max-num-seqs", "8", "--max-tokens", "8"],
    "chunked prefill": ["--max-num-seqs", "8", "--max-tokens", "8",
                        "--max-num-batched-tokens", "96"],
    # Too few cache blocks, and prompts that advance side by side: a request is preempted while its
    # prompt runs, and goes on behind what another one has cached in the meantime.
    "preemption": ["--limit", "24", "--max-num-seqs", "8", "--max-num-batched-tokens", "256",
                   "--long-prefill-token-threshold", "40", "--num-gpu-blocks-override", "44",
                   "--max-model-len", "640"],
}  # fmt: skip


@pytest.fixture(scope="module")
def prompts(tmp_path_factory):
    """60 prompts of 440 tokens, each beginning with one of four texts of 400."""
    chance = random.Random(1)
    rows = load_dataset("demo", DatasetOptions()).rows
    words = sorted({word for row in rows for word in row.prompt.split()})

    def text(count):
        return " ".join(chance.choice(words) for _ in range(count))

    shared = [text(400) for _ in range(4)]
    path = tmp_path_factory.mktemp("prefix") / "p.jsonl"
    lines = [{"id": f"p{n}", "prompt": f"{shared[n % 4]} {text(40)}"} for n in range(60)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture(scope="module")
def plain(engine, planted_model, prompts):
    return capture(engine, prompts.parent, planted_model("olmoe"), *FLOAT32, "--dataset", prompts)


def positions_run(output):
    """Positions that were run at least once, of those that were accepted."""
    ran = {place for begin, count in output["ran"] for place in range(begin, begin + count)}
    return sorted(place for place in ran if place < len(tokens_of(output)) - 1)


@pytest.mark.parametrize("case", CASES)
def test_rows_are_those_of_the_tokens_that_ran(engine, plain, prompts, tmp_path, case):
    run = capture(
        engine, tmp_path, plain.model, *FLOAT32, *CACHING, *CASES[case], "--dataset", prompts
    )
    ran = {name: positions_run(output) for name, output in run.outputs.items()}
    check_rows(run, ran=ran)
    check_same_routing(run, plain)
    missing = {name: len(tokens_of(run.outputs[name])) - 1 - len(ran[name]) for name in ran}
    stored = requests_of(run.lake)
    assert {name: row["cached_prefix_tokens"] for name, row in stored.items()} == missing
    assert Lake.open(run.lake).run("r")["prefix_caching"] is True
    assert sum(count > 200 for count in missing.values()) >= 5
    gaps = [name for name, at in ran.items() if len(at) <= at[-1] - at[0]]
    # Preempted requests went on further ahead than they had come themselves.
    assert bool(gaps) == (case == "preemption")


def test_an_interrupted_capture_resumes(engine, plain, prompts, tmp_path):
    """Killed after the second batch; the cache is empty again, so later requests run more."""
    options = [
        "capture", "--model", plain.model, "--dataset", prompts, "--lake", tmp_path / "lake",
        "--run-id", "r", "--enforce-eager", "--max-tokens", "8", "--max-num-seqs", "8",
        "--ignore-eos", *FLOAT32, *CACHING,
    ]  # fmt: skip
    script = tmp_path / "dies.py"
    script.write_text(dies_after_two_commits(40_000))
    killed = engine.run(*options, code=script)
    assert killed.exit_code == -signal.SIGKILL, killed.stderr
    assert 0 < len(requests_of(tmp_path / "lake")) < 60

    resumed = engine.run(*options)

    assert resumed.exit_code == 0, resumed.stderr
    stored = requests_of(tmp_path / "lake")
    assert len(stored) == 60
    assert sum(row["cached_prefix_tokens"] > 300 for row in stored.values()) > 40
    rows = routing_of(tmp_path / "lake")
    assert {key: positions for key, (positions, _, _) in rows.items()} == {
        (name, layer): list(
            range(
                row["cached_prefix_tokens"],
                row["num_prompt_tokens"] + row["num_generated_tokens"] - 1,
            )
        )
        for name, row in stored.items()
        for layer in range(4)
    }


def test_without_the_option_every_token_runs(plain):
    check_rows(plain)
    assert {row["cached_prefix_tokens"] for row in requests_of(plain.lake).values()} == {0}
    assert Lake.open(plain.lake).run("r")["prefix_caching"] is False
