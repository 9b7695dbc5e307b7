# ruff: noqa: INP001, T201 - a script that prints
"""Captures planted models on a GPU in many settings and compares the rows.

Each case is one `tracer capture` in a process of its own, several at a time. Compared are

  reference   a capture of the same prompts without CUDA graphs, or without what the case is about
  recorder    vLLM's own expert ids of the very same forward passes (V1 runner)
  definition  router logits of Hugging Face's model in float32 on the CPU, softmax and top-k
  planted     the committees an audit names, in prompts, outputs and both

Greedy outputs may part where numbers round otherwise; rows are compared up to the first token that
differs. Example, with vLLM for CUDA (about two and a half minutes on an H200 with 16 cores):

  python benchmarks/gpu/vllm_check.py --folder check --jobs 21 \
      --gpu-memory-utilization 0.05 --kv-cache-memory-bytes 1500000000

Words that are not known here go to `tracer capture`. The last line of output is JSON.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

import tracer
from tracer.datasets import DatasetOptions, load_dataset
from tracer.store.lake import Lake

RUN = "r"
REPOSITORY = Path(__file__).parents[2]
RECORDER = REPOSITORY / "tests" / "engine" / "capture_with_vllm_ids.py"
V1, V2 = {"VLLM_USE_V2_MODEL_RUNNER": "0"}, {"VLLM_USE_V2_MODEL_RUNNER": "1"}
FLOAT32 = ["--dtype", "float32", "--weight-precision", "f32"]
# Long prompts run in pieces between the decoding of others.
MIXED = ["--dataset", "MIXED", "--max-tokens", "16", "--ignore-eos"]
CHUNKED = [*MIXED, *FLOAT32, "--max-num-batched-tokens", "256", "--max-num-seqs", "128"]
DEMO = ["--dataset", "demo", "--max-tokens", "16"]
EAGER = ["--enforce-eager"]
PIECEWISE = ["--compilation-config", '{"cudagraph_mode": "PIECEWISE"}']
SHARED = ["--dataset", "SHARED", "--max-tokens", "8", *FLOAT32, "--max-num-batched-tokens", "96"]
CACHING = [*SHARED, "--max-num-seqs", "8", "--enable-prefix-caching"]
FEW_BLOCKS = [*SHARED, "--max-num-seqs", "16", "--max-model-len", "640"]
FEW_BLOCKS += ["--num-gpu-blocks-override", "80"]  # of 16 tokens: room for three requests
NGRAM = ["--speculative-config"]
NGRAM += ['{"method": "ngram", "num_speculative_tokens": 3, "prompt_lookup_max": 3}']
EXTRAS = ["--top-m", "6", "--router-logits", "--router-weights"]


@dataclass(frozen=True)
class Case:
    """One capture.

    reference: the case it is compared with; definition: compare with Hugging Face, too
    """

    architecture: str
    runner: dict[str, str]
    options: list[str]
    reference: str | None = None
    recorder: bool = False
    definition: bool = False
    planted: bool = False


CASES = {
    "olmoe-eager": Case("olmoe", V1, [*CHUNKED, *EAGER], definition=True),
    "olmoe-graphs": Case("olmoe", V1, CHUNKED, "olmoe-eager", definition=True),
    "olmoe-piecewise": Case("olmoe", V1, [*CHUNKED, *PIECEWISE], "olmoe-eager"),
    "olmoe-eager-v2": Case("olmoe", V2, [*CHUNKED, *EAGER], "olmoe-eager"),
    "olmoe-graphs-v2": Case("olmoe", V2, CHUNKED, "olmoe-eager", definition=True),
    "olmoe-piecewise-v2": Case("olmoe", V2, [*CHUNKED, *PIECEWISE], "olmoe-eager"),
    "olmoe-recorder": Case("olmoe", V1, [*CHUNKED], "olmoe-eager", recorder=True),
    "qwen3-recorder": Case("qwen3_moe", V1, CHUNKED, recorder=True, definition=True),
    "olmoe-extras": Case("olmoe", V1, [*CHUNKED, *EXTRAS], "olmoe-eager"),
    "olmoe-extras-v2": Case("olmoe", V2, [*CHUNKED, *EXTRAS], "olmoe-eager"),
    "olmoe-ngram": Case("olmoe", V1, [*CHUNKED, *NGRAM], "olmoe-eager"),
    "olmoe-shared": Case("olmoe", V1, [*SHARED, "--max-num-seqs", "8"]),
    "olmoe-prefix": Case("olmoe", V1, CACHING, "olmoe-shared"),
    "olmoe-prefix-v2": Case("olmoe", V2, CACHING, "olmoe-shared"),
    "olmoe-few-blocks": Case("olmoe", V1, FEW_BLOCKS, "olmoe-shared"),
    "olmoe-few-blocks-v2": Case("olmoe", V2, FEW_BLOCKS, "olmoe-shared"),
    "olmoe-demo": Case("olmoe", V1, DEMO, planted=True, recorder=True),
    "olmoe-demo-v2": Case("olmoe", V2, DEMO, "olmoe-demo", planted=True),
    "qwen3-demo-v2": Case("qwen3_moe", V2, DEMO, planted=True),
    "deepseek-demo": Case("deepseek_v2", {}, DEMO, planted=True),
    "deepseek-demo-v1": Case("deepseek_v2", V1, DEMO, "deepseek-demo", True, planted=True),
}


@dataclass
class Outcome:
    """What a capture answered: its summary, or why there is none."""

    seconds: float
    summary: dict[str, Any] = field(default_factory=dict)
    error: str = ""


def write_prompts(folder: Path) -> None:
    """MIXED: 240 prompts of 1 to 700 words; SHARED: 60 of 440, each with one of four beginnings."""
    chance = random.Random(0)
    words = [
        word for row in load_dataset("demo", DatasetOptions()).rows for word in row.prompt.split()
    ]

    def text(count: int) -> str:
        return " ".join(chance.choices(words, k=count))

    lengths = [min(700, int(chance.paretovariate(0.7))) for _ in range(236)] + [700] * 4
    chance.shuffle(lengths)
    beginnings = [text(400) for _ in range(4)]
    prompts = {
        "MIXED": [text(length) for length in lengths],
        "SHARED": [f"{beginnings[number % 4]} {text(40)}" for number in range(60)],
    }
    for name, texts in prompts.items():
        lines = [json.dumps({"id": f"p{n}", "prompt": one}) + "\n" for n, one in enumerate(texts)]
        (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")


def capture(name: str, folder: Path, options: list[str], deadline: float) -> Outcome:
    """Run a case; its lake is ``folder / name / "lake"``."""
    case, place = CASES[name], folder / name
    place.mkdir()
    command: list[str] = [sys.executable]
    if case.recorder:
        command += [str(RECORDER), str(place / "ids.npz")]
    else:
        command += ["-m", "tracer", "capture"]
    command += ["--model", str(folder / case.architecture), "--lake", str(place / "lake")]
    command += ["--run-id", RUN, "--format", "json"]
    command += [
        str(folder / f"{word}.jsonl") if word in {"MIXED", "SHARED"} else word
        for word in case.options
    ]
    began = time.monotonic()
    environment = {**os.environ, **case.runner}
    with (place / "log").open("w", encoding="utf-8") as log:
        try:
            done = subprocess.run(
                [*command, *options],
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment,
                text=True,
                check=False,
                timeout=max(1.0, deadline - began),
            )
        except subprocess.TimeoutExpired:
            return Outcome(time.monotonic() - began, error="out of time")
    seconds = time.monotonic() - began
    (place / "out").write_text(done.stdout, encoding="utf-8")
    if done.returncode:
        said = (place / "log").read_text(encoding="utf-8").splitlines()
        lines = [line for line in said if line.startswith(("Error:", "Hint:"))] or said[-3:]
        return Outcome(seconds, error=f"exit code {done.returncode}: {' '.join(lines)}"[:600])
    summary = json.loads(done.stdout[done.stdout.index("{\n") :])
    return Outcome(seconds, summary)


def capture_all(
    arguments: argparse.Namespace, folder: Path, options: list[str]
) -> dict[str, Outcome]:
    """Write models and prompts, run the cases, several at a time; also to ``outcomes.json``."""
    folder.mkdir(parents=True, exist_ok=True)
    write_prompts(folder)
    for architecture in {CASES[name].architecture for name in arguments.cases}:
        words = ["demo-model", str(folder / architecture), "--architecture", architecture]
        subprocess.run([sys.executable, "-m", "tracer", *words], check=True, stdout=sys.stderr)
    deadline = time.monotonic() + arguments.limit

    def one(name: str) -> tuple[str, Outcome]:
        outcome = capture(name, folder, options, deadline)
        print(f"{name}: {outcome.error or 'captured'}, {outcome.seconds:.0f} s", file=sys.stderr)
        return name, outcome

    with ThreadPoolExecutor(arguments.jobs) as pool:
        outcomes = dict(pool.map(one, arguments.cases))
    text = json.dumps({name: asdict(outcome) for name, outcome in outcomes.items()})
    (folder / "outcomes.json").write_text(text, encoding="utf-8")
    return outcomes


class Rows:
    """A run's rows in order: request, layer, position; each choice sorted by expert.

    keys: frame (request_id, layer_id, position, at); ids, weights: [rows, k]
    """

    def __init__(self, lake: Path) -> None:
        opened = tracer.open_lake(lake)
        rows = opened.scan("routing").sort("request_id", "layer_id", "position").collect()
        ids = np.array(rows["expert_ids"].to_list())
        weights = np.array(rows["gate_weights"].to_list(), dtype=np.float64)
        order = ids.argsort(axis=-1)
        self.ids = np.take_along_axis(ids, order, -1)
        self.weights = np.take_along_axis(weights, order, -1)
        self.keys = rows.select("request_id", "layer_id", "position").with_row_index("at")
        self.tokens = opened.scan("tokens").select("request_id", "position", "token_id").collect()

    def sequences(self) -> dict[str, list[int]]:
        """Tokens of each request, the last sampled one included."""
        ordered = self.tokens.sort("request_id", "position")
        parts = ordered.partition_by("request_id", maintain_order=True)
        return {part["request_id"][0]: part["token_id"].to_list() for part in parts}


def compare(ours: Rows, other: Rows) -> dict[str, Any]:
    """Rows of both, up to the first token that differs: id sets that do, and weights apart."""
    key = ["request_id", "position"]
    tokens = ours.tokens.join(other.tokens, on=key, suffix="_other")
    parted = (
        tokens.filter(pl.col("token_id") != pl.col("token_id_other"))
        .group_by("request_id")
        .agg(pl.col("position").min().alias("parted"))
    )
    both = (
        ours.keys.join(other.keys, on=["request_id", "layer_id", "position"], suffix="_other")
        .join(parted, on="request_id", how="left")
        .filter(pl.col("parted").is_null() | (pl.col("position") < pl.col("parted")))
    )
    here, there = both["at"].to_numpy(), both["at_other"].to_numpy()
    return {
        **_agreement(ours.ids[here], ours.weights[here], other.ids[there], other.weights[there]),
        "rows": len(ours.ids),
        "rows_reference": len(other.ids),
        "requests_parted": parted.height,
    }


def _agreement(ids: Any, weights: Any, other_ids: Any, other_weights: Any) -> dict[str, Any]:
    same = (ids == other_ids).all(axis=-1)
    apart = np.abs(weights - other_weights)[same]
    return {
        "compared": len(same),
        "different": int((~same).sum()),
        "weights_apart": float(f"{apart.max() if len(apart) else 0.0:.3g}"),
    }


def compare_recorder(rows: Rows, path: Path) -> dict[str, Any]:
    """Id sets that differ from those that vLLM returned with the same requests."""
    recorded = np.load(path)
    compared = different = 0
    parts = rows.keys.partition_by("request_id", "layer_id", maintain_order=True)
    for part in parts:
        ids = rows.ids[part["at"].to_numpy()]
        theirs = recorded[part["request_id"][0]][:, part["layer_id"][0]].astype(np.int64)
        compared += len(ids)
        if theirs.shape == ids.shape:
            different += int((ids != np.sort(theirs, axis=-1)).any(axis=-1).sum())
        else:
            different += len(ids)
    return {"compared": compared, "different": different}


def compare_definition(rows: Rows, model: Path) -> dict[str, Any]:
    """Id sets and weights against softmax and top-k of Hugging Face's router logits, float32."""
    from tests.engine.routing import hugging_face_logits, softmax_topk

    sequences = rows.sequences()
    logits = hugging_face_logits(model, [tokens[:-1] for tokens in sequences.values()])
    renormalise = json.loads((model / "config.json").read_text())["norm_topk_prob"]
    number = {request: index for index, request in enumerate(sequences)}
    ids, weights = np.empty_like(rows.ids), np.empty_like(rows.weights)
    for part in rows.keys.partition_by("request_id", "layer_id", maintain_order=True):
        wanted = logits[part["layer_id"][0]][number[part["request_id"][0]]]
        best, scores = softmax_topk(wanted, rows.ids.shape[1], renormalise=renormalise)
        order = best.argsort(-1)
        at = part["at"].to_numpy()
        ids[at], weights[at] = best.gather(1, order).numpy(), scores.gather(1, order).numpy()
    return _agreement(rows.ids, rows.weights, ids, weights)


def planted(lake: Path, model: Path) -> dict[str, bool]:
    """Whether an audit of each token scope names exactly the planted committees."""
    truth = json.loads((model / "planted.json").read_text())["layers"]
    wanted = {int(layer): sorted(found["committee"]) for layer, found in truth.items()}
    opened, found = tracer.open_lake(lake), {}
    for scope in ("prompt", "generated", "all"):
        layers = opened.audit(tokens=scope).layers
        found[scope] = {one.layer_id: sorted(one.committee) for one in layers} == wanted
    return found


def look(name: str, folder: Path, outcome: Outcome, done: dict[str, Rows]) -> dict[str, Any]:
    """All comparisons of one case."""
    case, place = CASES[name], folder / name
    rows = done[name]
    answer: dict[str, Any] = {
        "seconds": round(outcome.seconds, 1),
        "requests": outcome.summary.get("num_requests"),
        "rows": len(rows.ids),
    }
    requests = Lake.open(place / "lake").rows("requests", RUN, ["cached_prefix_tokens"]).to_pydict()
    answer["cached_prefix_tokens"] = sum(requests["cached_prefix_tokens"])
    if case.reference and case.reference in done:
        answer["reference"] = {"case": case.reference, **compare(rows, done[case.reference])}
    if case.recorder:
        answer["recorder"] = compare_recorder(rows, place / "ids.npz")
    if case.definition:
        answer["definition"] = compare_definition(rows, folder / case.architecture)
    if case.planted:
        answer["planted"] = planted(place / "lake", folder / case.architecture)
    return answer


def main() -> int:
    """Parse, capture, compare, print; 1 where a case fails or what must be equal is not."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, required=True, help="empty or missing")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--jobs", type=int, default=4, help="captures at a time")
    parser.add_argument("--limit", type=float, default=600.0, help="seconds for all captures")
    parser.add_argument("--again", action="store_true", help="compare what was captured before")
    arguments, options = parser.parse_known_args()
    folder: Path = arguments.folder
    if arguments.again:
        kept = json.loads((folder / "outcomes.json").read_text(encoding="utf-8"))
        outcomes = {name: Outcome(**kept[name]) for name in arguments.cases if name in kept}
    else:
        outcomes = capture_all(arguments, folder, options)
    arguments.cases = list(outcomes)
    done = {
        name: Rows(folder / name / "lake") for name in arguments.cases if not outcomes[name].error
    }
    found: dict[str, Any] = {}
    failed = False
    for name, outcome in outcomes.items():
        if outcome.error:
            found[name] = {"seconds": round(outcome.seconds, 1), "error": outcome.error}
            failed = True
        else:
            try:
                found[name] = look(name, folder, outcome, done)
            except Exception as error:  # noqa: BLE001 - one case must not hide the others
                found[name] = {"error": f"{type(error).__name__}: {error}"[:600]}
                failed = True
        exact = found[name].get("recorder", {}).get("different", 0)
        failed |= bool(exact) or not all(found[name].get("planted", {"": True}).values())
        print(f"{name:20} {json.dumps(found[name])}", flush=True)
    print(json.dumps(found))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
