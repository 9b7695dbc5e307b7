# ruff: noqa: INP001, T201 - a script that prints
"""Throughput of vLLM with capture against without, and against vLLM's own recorder of expert ids.

  off      the engine as if moe-tracer were not installed
  ours     ids and weights of every token into a lake, as `tracer capture` does
  theirs   --enable-return-routed-experts: ids alone, returned with the outputs, nothing stored
  check    both in one engine, for one load: every id set is compared

A mode runs on the model runner that vLLM chooses, `ours@1` on V1, `ours@2` on V2. Each mode has an
engine of its own, since CUDA graphs are captured when the model loads. They lie side by side on one
device, so give each its share with --gpu-memory-utilization; only one runs at a time. Every load
runs once to warm up, then the modes take turns in random order. Ratios are of tokens per second,
round by round: `served` until the last token came out, `whole` until the run was committed, too.

  python benchmarks/gpu/vllm_serve.py --model allenai/OLMoE-1B-7B-0924 --rounds 8 \
      --gpu-memory-utilization 0.28

An engine that cannot run a mode ends the benchmark with its own message. Words that are not known
here go to vLLM, such as --load-format dummy. On a CPU (`--modes off ours`, small loads) it only
proves that the script runs. The last line of output is JSON.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import IO, Any, cast

from tracer.bench.ratios import paired_ratio

LAUNCH = Path(__file__).with_name("vllm_launch.py")
LOADS = ["prefill:512:1024:1", "decode:256:128:256"]
PAIRS = (("ours", "off"), ("theirs", "off"), ("ours", "theirs"))
MODES = [f"{mode}{runner}" for runner in ("", "@1", "@2") for mode in ("off", "ours", "theirs")]
RUNNERS = {"": {}, "1": {"VLLM_USE_V2_MODEL_RUNNER": "0"}, "2": {"VLLM_USE_V2_MODEL_RUNNER": "1"}}
SECONDS = {"served": "served_s", "whole": "whole_s"}
ERROR_LINES = 15
POLL_S = 0.01


class Engine:
    """A launch in a process of its own, and what it wrote."""

    def __init__(
        self, mode: str, arguments: argparse.Namespace, options: list[str], folder: Path
    ) -> None:
        self.mode, self.folder = mode, folder
        folder.mkdir()
        what, _, runner = mode.partition("@")
        loads = arguments.load[-1:] if mode == "check" else arguments.load
        command = [sys.executable, LAUNCH, what, "--model", arguments.model, "--folder", folder]
        command += [word for load in loads for word in ("--load", load)]
        command += [*([] if mode == "check" else ["--turns", "/dev/stdin"]), *options]
        self._log = (folder / "log").open("w+", encoding="utf-8")
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, **RUNNERS[runner]},
        )
        self._lines = cast("IO[str]", self._process.stdin)
        self._read = 0
        self.answered: dict[str, Any] | None = None

    def answer(self) -> dict[str, Any]:
        """What it says of itself, once it has started.

        Raises:
            RuntimeError: it failed; what it said last.
        """
        if self.mode == "check":
            self._process.wait()
        else:
            self._next_turn()
        path = self.folder / "answer.json"
        if self._process.poll() or not path.exists():
            raise self._failure()
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return found

    def turn(self, load: str) -> dict[str, Any]:
        """Run a load by name."""
        self._lines.write(f"{load}\n")
        self._lines.flush()
        return self._next_turn()

    def _next_turn(self) -> dict[str, Any]:
        path = self.folder / "turns.jsonl"
        while True:
            if path.exists():
                lines = path.read_text(encoding="utf-8").split("\n")[:-1]
                if len(lines) > self._read:
                    self._read += 1
                    turn: dict[str, Any] = json.loads(lines[self._read - 1])
                    return turn
            if self._process.poll() is not None:
                raise self._failure()
            time.sleep(POLL_S)

    def _failure(self) -> RuntimeError:
        said = (self.folder / "log").read_text(encoding="utf-8").splitlines()
        return RuntimeError("\n".join([f"mode {self.mode} failed:", *said[-ERROR_LINES:]]))

    def close(self) -> None:
        """Let it end by itself."""
        self._lines.close()
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._log.close()


def figures(above: list[float], below: list[float] | None = None) -> list[float]:
    """[median, low, high] of the values, or of their ratios round by round."""
    ratio = paired_ratio(above, below or [1.0] * len(above))
    return [float(f"{value:.5g}") for value in (ratio.median, ratio.low, ratio.high)]


def measure(arguments: argparse.Namespace, options: list[str], folder: Path) -> dict[str, Any]:
    """All rounds; figures by load, and what was run."""
    order = random.Random(0)
    engines: list[Engine] = []
    try:
        for mode in [*arguments.modes, *(["check"] if arguments.check else [])]:
            engines.append(Engine(mode, arguments, options, folder / mode))
            if not arguments.at_once:
                engines[-1].answered = engines[-1].answer()
        run = {engine.mode: engine.answered or engine.answer() for engine in engines}
        ids = run.pop("check", {}).get("ids")
        sizes = {load.split(":")[0]: _tokens(load) for load in arguments.load}
        turns: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for number in range(arguments.rounds):
            print(f"round {number + 1} of {arguments.rounds}", file=sys.stderr)
            for load, size in sizes.items():
                running = [engine for engine in engines if engine.mode != "check"]
                for engine in order.sample(running, len(running)):
                    turn = engine.turn(load)
                    expected = size * run[engine.mode]["workers"][0]["moe_layers"]
                    if turn.get("rows", expected) != expected:
                        raise RuntimeError(f"{turn['rows']} rows recorded instead of {expected}")
                    turns.setdefault((engine.mode, load), []).append(turn)
    finally:
        for engine in engines:
            engine.close()
    return {
        "measurement": all(part["device"] != "cpu" for part in run.values()),
        "model": arguments.model,
        "rounds": arguments.rounds,
        "run": run,
        "ids": ids,
        "memory": {mode: turns[mode, next(iter(sizes))][-1]["workers"] for mode in arguments.modes},
        "loads": {
            load: _figures_of(arguments.modes, load, size, turns) for load, size in sizes.items()
        },
    }


def _tokens(load: str) -> int:
    """Tokens forwarded; the last sampled one of a request is not."""
    num_prompts, prompt, generated = map(int, load.split(":")[1:])
    return num_prompts * (prompt + generated - 1)


def _figures_of(
    modes: list[str], load: str, size: int, turns: dict[tuple[str, str], list[dict[str, Any]]]
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for until, key in SECONDS.items():
        speeds = {mode: [size / turn[key] for turn in turns[mode, load]] for mode in modes}
        found[until] = {
            "tokens_per_s": {mode: figures(speeds[mode]) for mode in modes},
            "ratio": {
                f"{above}{runner}/{below}{runner}": figures(
                    speeds[f"{above}{runner}"], speeds[f"{below}{runner}"]
                )
                for runner in ("", "@1", "@2")
                for above, below in PAIRS
                if {f"{above}{runner}", f"{below}{runner}"} <= set(modes)
            },
        }
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
            f" {worker['hooked']} of {worker['moe_layers']} routers hooked,"
            f" {worker['device_bytes'] / 1e6:,.1f} MB of torch's on the device"
        )
    for name, by_end in found["loads"].items():
        for until, load in by_end.items():
            label = f"{name} {until}"
            for mode, (median, low, high) in load["tokens_per_s"].items():
                print(f"{label:24} {mode:12} {median:12,.0f} tokens/s [{low:,.0f}, {high:,.0f}]")
            for pair, (median, low, high) in load["ratio"].items():
                print(f"{label:24} {pair:12} {median:.3f} [{low:.3f}, {high:.3f}]")
    if ids := found["ids"]:
        print(f"id sets that differ from vLLM's own: {ids['different']} of {ids['compared']}")


def main() -> int:
    """Parse, measure, print; 1 where a launch fails or ids differ."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True)
    parser.add_argument("--modes", nargs="+", default=MODES[:3], choices=MODES)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument(
        "--load",
        action="append",
        metavar="NAME:PROMPTS:PROMPT:GENERATED",
        help=f"in tokens; default {' and '.join(LOADS)}",
    )
    parser.add_argument("--check", action="store_true", help="compare ids with vLLM's own, too")
    parser.add_argument("--at-once", action="store_true", help="start the engines side by side")
    parser.add_argument("--logs", type=Path, help="keep the folders of the launches there")
    arguments, options = parser.parse_known_args()
    arguments.load = arguments.load or LOADS
    try:
        with tempfile.TemporaryDirectory(prefix="vllm-serve-") as name:
            folder = arguments.logs or Path(name)
            folder.mkdir(parents=True, exist_ok=True)
            found = measure(arguments, options, folder)
    except RuntimeError as error:
        print(error, file=sys.stderr)
        return 1
    show(found)
    print(json.dumps(found))
    ids = found["ids"]
    return 1 if ids and (ids["different"] or ids["compared"] != ids["expected"]) else 0


if __name__ == "__main__":
    sys.exit(main())
