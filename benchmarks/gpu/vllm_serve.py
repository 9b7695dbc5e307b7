# ruff: noqa: INP001, T201 - a script that prints
"""Throughput of vLLM with capture against without, and against vLLM's own recorder of expert ids.

  off      the engine as if moe-tracer were not installed
  ours     ids and weights of every token into a lake, as `tracer capture` does
  theirs   --enable-return-routed-experts: ids alone, returned with the outputs, nothing stored
  check    both in one engine, for one load: every id set is compared

Each mode and load is launched anew in every round, in random order, since CUDA graphs are captured
when the model loads. A launch runs its load twice and times the second. Ratios are of tokens per
second, round by round. Example:

  python benchmarks/gpu/vllm_serve.py --model allenai/OLMoE-1B-7B-0924 --rounds 5

Not yet run on CUDA. On a CPU (`--modes off ours`, small loads) it proves that the script runs. An
engine that cannot run a mode ends the benchmark with the engine's own message. Words that are not
known here go to vLLM, such as --tensor-parallel-size 2. The last line of output is JSON.
"""

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tracer.bench.ratios import paired_ratio

LAUNCH = Path(__file__).with_name("vllm_launch.py")
LOADS = ["prefill:512:1024:1", "decode:256:128:256"]
PAIRS = (("ours", "off"), ("theirs", "off"), ("ours", "theirs"))
ERROR_LINES = 15


def run(mode: str, load: str, arguments: argparse.Namespace, options: list[str]) -> dict[str, Any]:
    """One launch in a process of its own; its answer.

    Raises:
        RuntimeError: it failed; what it said last.
    """
    with tempfile.TemporaryDirectory(prefix="vllm-serve-") as name:
        folder = Path(name)
        command = [sys.executable, LAUNCH, mode, "--model", arguments.model, "--load", load]
        command += ["--folder", folder, *options]
        with (folder / "log").open("w+", encoding="utf-8") as log:
            done = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, check=False)
            log.seek(0)
            said = log.read().splitlines()
        if done.returncode or not (folder / "answer.json").exists():
            if arguments.log:
                shutil.copy(folder / "log", arguments.log)
            raise RuntimeError("\n".join([f"mode {mode} failed:", *said[-ERROR_LINES:]]))
        answer: dict[str, Any] = json.loads((folder / "answer.json").read_text(encoding="utf-8"))
        return answer


def figures(above: list[float], below: list[float] | None = None) -> list[float]:
    """[median, low, high] of the values, or of their ratios round by round."""
    ratio = paired_ratio(above, below or [1.0] * len(above))
    return [float(f"{value:.5g}") for value in (ratio.median, ratio.low, ratio.high)]


def measure(arguments: argparse.Namespace, options: list[str]) -> dict[str, Any]:
    """All rounds; figures by load, and what was run."""
    order = random.Random(0)
    launches = [(mode, load) for mode in arguments.modes for load in arguments.load]
    answers: dict[tuple[str, str], list[dict[str, Any]]] = {launch: [] for launch in launches}
    for number in range(arguments.rounds):
        for mode, load in order.sample(launches, len(launches)):
            print(f"round {number + 1} of {arguments.rounds}: {mode} {load}", file=sys.stderr)
            answers[mode, load].append(run(mode, load, arguments, options))
    speeds = {key: [answer.pop("tokens_per_s") for answer in answers[key]] for key in launches}
    found: dict[str, Any] = {
        "measurement": all(part[0]["device"] != "cpu" for part in answers.values()),
        "model": arguments.model,
        "rounds": arguments.rounds,
        "run": {mode: answers[mode, arguments.load[0]][0] for mode in arguments.modes},
        "loads": {
            load: {
                "tokens_per_s": {mode: figures(speeds[mode, load]) for mode in arguments.modes},
                "ratio": {
                    f"{above}/{below}": figures(speeds[above, load], speeds[below, load])
                    for above, below in PAIRS
                    if above in arguments.modes and below in arguments.modes
                },
            }
            for load in arguments.load
        },
    }
    if arguments.check:
        print("check: ids against vLLM's own", file=sys.stderr)
        found["ids"] = run("check", arguments.load[-1], arguments, options)["ids"]
    return found


def show(found: dict[str, Any]) -> None:
    """What was run, then each load's figures."""
    if not found["measurement"]:
        print("a dry run on a CPU: these figures measure nothing")
    for mode, what in found["run"].items():
        worker = what["workers"][0]
        print(
            f"{mode:7} {what['engine']} on {what['device']}, {worker['runner']},"
            f" CUDA graphs {what['cudagraph_mode']}, kernels {', '.join(worker['moe_kernels'])},"
            f" {worker['hooked']} of {worker['moe_layers']} routers hooked"
        )
    for name, load in found["loads"].items():
        for mode, (median, low, high) in load["tokens_per_s"].items():
            print(f"{name:24} {mode:12} {median:12,.0f} tokens/s [{low:,.0f}, {high:,.0f}]")
        for pair, (median, low, high) in load["ratio"].items():
            print(f"{name:24} {pair:12} {median:.3f} [{low:.3f}, {high:.3f}]")
    if ids := found.get("ids"):
        print(f"id sets that differ from vLLM's own: {ids['different']} of {ids['compared']}")


def main() -> int:
    """Parse, measure, print; 1 where a launch fails or ids differ."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True)
    parser.add_argument(
        "--modes", nargs="+", default=["off", "ours", "theirs"], choices=["off", "ours", "theirs"]
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--load",
        action="append",
        metavar="NAME:PROMPTS:PROMPT:GENERATED",
        help=f"in tokens; default {' and '.join(LOADS)}",
    )
    parser.add_argument("--check", action="store_true", help="compare ids with vLLM's own, too")
    parser.add_argument("--log", type=Path, help="keep the output of a launch that fails")
    arguments, options = parser.parse_known_args()
    arguments.load = arguments.load or LOADS
    try:
        found = measure(arguments, options)
    except RuntimeError as error:
        print(error, file=sys.stderr)
        return 1
    show(found)
    print(json.dumps(found))
    ids = found.get("ids")
    return 1 if ids and (ids["different"] or ids["compared"] != ids["expected"]) else 0


if __name__ == "__main__":
    sys.exit(main())
