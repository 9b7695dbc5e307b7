# ruff: noqa: INP001 - a script
"""One launch of a vLLM engine in one mode: runs loads and writes their times as JSON.

CUDA graphs are captured when a model is loaded, with the hooks in them or without, so every mode
has a launch of its own. It runs its load once, or with ``--turns`` the load that each line of a
file names, as the line arrives. Started by vllm_serve.py; see there for the modes.
"""

import argparse
import json
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# The function that looks at the worker's model travels to it by value.
os.environ["VLLM_ALLOW_INSECURE_SERIALIZATION"] = "1"

import numpy as np

import tracer
from tracer.capture import engine_setup
from tracer.capture.engine import Engine, start
from tracer.capture.engine_setup import EngineIdentity
from tracer.capture.manifest import CaptureRequest, describe_run, describe_settings
from tracer.capture.plugin import CONFIG_KEY
from tracer.capture.prompts import Prompt
from tracer.capture.recording import CaptureSummary, Recording
from tracer.records import DatasetRow
from tracer.store.lake import Lake
from tracer.store.run_writer import writing_run

FIRST_WORD = 3  # lower token ids are special in many vocabularies
RETURN_IDS = "--enable-return-routed-experts"
RECORDED = ("ours", "check")
RUN = "run"


@dataclass(frozen=True)
class Load:
    """Requests of one shape: prompt and generated tokens of each."""

    name: str
    num_prompts: int
    prompt: int
    generated: int

    @classmethod
    def parse(cls, text: str) -> "Load":
        """From NAME:PROMPTS:PROMPT:GENERATED."""
        name, *numbers = text.split(":")
        return cls(name, *map(int, numbers))

    @property
    def num_tokens(self) -> int:
        """Tokens forwarded; the last sampled one of a request is not."""
        return self.num_prompts * (self.prompt + self.generated - 1)

    def prompts(self, vocabulary: int) -> list[Prompt]:
        """Seeded random token ids."""
        rng = np.random.default_rng([self.num_prompts, self.prompt])
        shape = (self.num_prompts, self.prompt)
        return [
            Prompt(f"{self.name}-{number}", DatasetRow(f"{self.name}-{number}", ""), "", token_ids)
            for number, token_ids in enumerate(rng.integers(FIRST_WORD, vocabulary, shape).tolist())
        ]


class Silent:
    """Progress that nobody watches."""

    def note(self, text: str) -> None:
        """Nothing."""

    def begin(self, total: int, done: int) -> None:
        """Nothing."""

    def advance(self, requests: int, tokens: int) -> None:
        """Nothing."""

    def written(self, num_bytes: int) -> None:
        """Nothing."""


@dataclass(frozen=True)
class Launch:
    """A started engine and what it was started with."""

    mode: str
    model: str
    options: list[str]
    identity: EngineIdentity
    engine: Engine

    def keep_hooks(self) -> None:
        """Let recordings end without taking the hooks out, so that more may follow."""
        call = self.engine.call

        def staying(method: str, *args: Any) -> list[Any]:
            return call("tracer_stop" if method == "tracer_end" else method, *args)

        self.engine.call = staying

    def timed(self, load: Load, folder: Path) -> dict[str, float]:
        """Run a load; seconds until it was served, and until all of it was committed, too."""
        step, served = self.engine.step, 0.0

        def watched() -> list[Any]:
            nonlocal served
            outputs = step()
            served = time.perf_counter()
            return outputs

        self.engine.step = watched
        began = time.perf_counter()
        if self.mode in RECORDED:
            self.record(load, folder / "lake")
        else:
            self.run(load)
        whole = time.perf_counter() - began
        self.engine.step = step
        return {"served_s": served - began, "whole_s": whole}

    def record(self, load: Load, lake_path: Path) -> None:
        """Run a load as ``tracer capture`` does, from the first request to the committed run."""
        prompts = self._prompts(load)
        request = CaptureRequest(
            self.model,
            RUN,
            max_tokens=load.generated,
            ignore_eos=True,
            engine_options=self.options,
        )
        engine, lake = self.engine, Lake.create(lake_path)
        settings = describe_settings(request, load.name, "", self.identity, engine.config)
        row = describe_run(settings, engine.config, engine.model)
        with writing_run(lake, row) as target:
            summary = CaptureSummary(target.run_id, lake.location)
            Recording(request, engine, target, row, Silent(), summary).run(prompts, [])

    def run(self, load: Load) -> None:
        """Run the same requests, fed the same way, without a word of recording."""
        prompts = self._prompts(load)
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        params = SamplingParams(
            temperature=0.0,
            seed=self.engine.config.model_config.seed,
            max_tokens=load.generated,
            ignore_eos=True,
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        window = 4 * self.engine.config.scheduler_config.max_num_seqs
        waiting, running = list(reversed(prompts)), 0
        while waiting or running:
            while waiting and running < window:
                prompt = waiting.pop()
                self.engine.add(prompt.request_id, prompt.token_ids, params)
                running += 1
            for output in self.engine.step():
                running -= 1
                if self.mode == "theirs" and output.outputs[0].routed_experts is None:
                    raise RuntimeError("vLLM's own recorder returned no ids")

    def _prompts(self, load: Load) -> list[Prompt]:
        return load.prompts(self.engine.config.model_config.get_vocab_size())


def launch(mode: str, model: str, options: list[str]) -> Launch:
    """An engine in ``mode``."""
    identity = engine_setup.find_engine()
    engine_setup.import_engine(identity)
    if mode in ("theirs", "check"):
        options = [*options, RETURN_IDS]
    config = engine_setup.configure(model, options)
    if mode in RECORDED:
        return Launch(mode, model, options, identity, start(config))
    config.additional_config.pop(CONFIG_KEY)  # the plugin then leaves the workers alone
    from vllm.usage.usage_lib import UsageContext
    from vllm.v1.engine.llm_engine import LLMEngine

    engine = Engine(
        LLMEngine.from_vllm_config(
            config, usage_context=UsageContext.LLM_CLASS, disable_log_stats=True
        )
    )
    return Launch(mode, model, options, identity, engine)


def describe_worker(worker: Any) -> dict[str, Any]:
    """What a worker runs; called in its process."""
    from vllm.model_executor.layers.fused_moe.layer import MoERunner

    worker = getattr(worker, "worker", worker)
    runner = worker.model_runner
    moes = [part for part in runner.get_model().modules() if isinstance(part, MoERunner)]

    def kernel(moe: Any) -> str:
        method = moe.routed_experts.quant_method
        experts = getattr(getattr(method, "moe_kernel", None), "fused_experts", None)
        return type(experts if experts is not None else method).__name__

    return {
        "runner": f"{type(runner).__module__}.{type(runner).__name__}",
        "moe_layers": len(moes),
        "moe_kernels": sorted({kernel(moe) for moe in moes}),
        "routers": sorted({type(moe.router).__name__ for moe in moes}),
        "hooked": sum("_compute_routing" in vars(moe.router) for moe in moes),
        **memory(),
    }


def memory(_worker: Any = None) -> dict[str, int]:
    """Bytes that torch holds on the device, and that this process holds in the machine."""
    import psutil
    import torch

    held = torch.cuda.memory_allocated() if torch.cuda.is_available() else 0
    return {"device_bytes": held, "host_bytes": psutil.Process().memory_info().rss}


def describe(started: Launch) -> dict[str, Any]:
    """Engine, runner, graphs, kernels."""
    import torch

    config = started.engine.config
    compilation = config.compilation_config
    return {
        "engine": f"{started.identity.distribution} {started.identity.version}",
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "cudagraph_mode": str(getattr(compilation.cudagraph_mode, "name", None)),
        "cudagraph_sizes": list(compilation.cudagraph_capture_sizes or []),
        "async_scheduling": bool(config.scheduler_config.async_scheduling),
        "workers": started.engine.call(describe_worker),
    }


def compare(started: Launch, load: Load, lake: Path) -> dict[str, int]:
    """Id sets of (token, layer) that we recorded, and those in which vLLM's own differ."""
    theirs: dict[str, Any] = {}
    step = started.engine.step

    def keeping() -> list[Any]:
        outputs = step()
        for output in outputs:
            theirs[output.request_id] = np.asarray(output.outputs[0].routed_experts)
        return outputs

    started.engine.step = keeping
    started.record(load, lake)
    rows = tracer.open_lake(lake).scan("routing").collect()
    compared = different = 0
    for (request, layer), part in rows.group_by("request_id", "layer_id"):
        ours = np.sort(np.array(part.sort("position")["expert_ids"].to_list()), axis=-1)
        recorded = np.sort(theirs[request][:, layer].astype(np.int64), axis=-1)
        compared += len(ours)
        different += int((ours != recorded).any(axis=-1).sum())
    expected = load.num_tokens * len(started.engine.model["layer_ids"])
    return {"compared": compared, "different": different, "expected": expected}


def take_turns(started: Launch, loads: Sequence[Load], lines: Path, folder: Path) -> None:
    """Run the load that each line names; its times go to ``turns.jsonl`` when it is done."""
    by_name = {load.name: load for load in loads}
    if started.mode in RECORDED:
        started.keep_hooks()
    for load in loads:
        started.run(load)  # warms up; hooks without a run write and nobody reads
    with (folder / "turns.jsonl").open("w", encoding="utf-8") as turns, lines.open() as named:
        print(json.dumps({"ready": True}), file=turns, flush=True)
        for line in named:
            load = by_name[line.strip()]
            answer: dict[str, Any] = {"load": load.name, **started.timed(load, folder)}
            answer["workers"] = started.engine.call(memory)
            if started.mode in RECORDED:
                answer["rows"] = Lake.open(folder / "lake").num_rows("routing", RUN)
                shutil.rmtree(folder / "lake")
            print(json.dumps(answer), file=turns, flush=True)


def main() -> None:
    """Parse, launch, run, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("mode", choices=["off", "ours", "theirs", "check"])
    parser.add_argument("--model", required=True)
    parser.add_argument("--load", type=Load.parse, required=True, action="append")
    parser.add_argument("--folder", type=Path, required=True, help="lake and answer.json")
    parser.add_argument("--turns", type=Path, help="run the load that each line of this names")
    arguments, options = parser.parse_known_args()
    started = launch(arguments.mode, arguments.model, options)
    load = arguments.load[0]
    answer = describe(started)
    first = answer["workers"][0]
    if first["hooked"] != (first["moe_layers"] if arguments.mode in RECORDED else 0):
        raise RuntimeError(f"{arguments.mode} with {first['hooked']} hooked routers")
    if arguments.mode == "check":
        answer["ids"] = compare(started, load, arguments.folder / "lake")
    elif arguments.turns is None:
        started.run(load)
        answer["tokens_per_s"] = load.num_tokens / started.timed(load, arguments.folder)["whole_s"]
    (arguments.folder / "answer.json").write_text(json.dumps(answer), encoding="utf-8")
    if arguments.turns is not None:
        take_turns(started, arguments.load, arguments.turns, arguments.folder)
    started.engine.shutdown()


if __name__ == "__main__":
    main()
