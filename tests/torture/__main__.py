"""Kills captures anywhere, resumes them, and compares: `make torture ROUNDS=50 SEED=1`.

A round runs a real vLLM capture of the bundled prompts and ends one of its processes with SIGKILL:
at a named step of writing, or at a random moment. Then the same command runs again, without any
other step, and the lake must be what an uninterrupted capture makes. Each round appends one line
of JSON to the log; rounds of a seed are always the same, so a run may be cut into parts with FIRST.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.torture.compare import compare
from tests.torture.kill_at.sitecustomize import STEPS
from tracer.store.lake import Lake
from tracer.workflow.verify import verify_lake

HERE = Path(__file__).parent
PATIENCE = 300.0  # seconds, for any one process
# What a crash may leave between whole batches; `choices` and the audit do not see it.
HIDDEN_UNTIL_RESUMED = {"strangers"}
LAYOUTS = {
    "one process": {},
    "engine core apart": {"VLLM_ENABLE_V1_MULTIPROCESSING": "1"},
    "two workers": {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    },
}


@dataclass(frozen=True)
class Fault:
    """layout: of ``LAYOUTS``; step: of ``STEPS`` with its count, or None for a moment

    target: driver, core or worker, at a moment
    moment: part of the time from the first commit to the end, 0 to 1
    """

    layout: str
    step: str | None
    target: str
    moment: float

    @classmethod
    def of_round(cls, seed, number):
        """Steps and moments in turn, each step again and again."""
        chance = random.Random(f"{seed}-{number}")
        layout = chance.choices(list(LAYOUTS), weights=(3, 2, 1))[0]
        targets = {"one process": ["driver"], "engine core apart": ["driver", "core"]}
        target = chance.choice(targets.get(layout, ["driver", "core", "worker"]))
        step = None
        if number % 2 == 0:
            step = f"{list(STEPS)[number // 2 % len(STEPS)]}:{chance.randint(1, 40)}"
        return cls(layout, step, target, chance.random())


def command(model, lake, layout):
    workers = ["--tensor-parallel-size", "2"] if layout == "two workers" else []
    return [
        sys.executable, str(HERE / "small_batches.py"), "capture", "--model", str(model),
        "--dataset", "demo", "--lake", str(lake), "--run-id", "r", "--max-tokens", "8",
        "--ignore-eos", "--dtype", "float32", "--weight-precision", "f32", "--router-logits",
        "--enforce-eager", "--max-num-seqs", "16", "--format", "json", *workers,
    ]  # fmt: skip


def environment(layout, step=None):
    found = {**os.environ, **LAYOUTS[layout], "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    found["PYTHONPATH"] = os.pathsep.join([str(HERE / "kill_at"), str(HERE.parents[1])])
    return found | ({"TORTURE_STEP": step} if step else {})


def begun(lake):
    return any((lake / "requests" / "_delta_log").glob("*[1-9].json"))


def wait_for_commit(process, lake):
    end = time.monotonic() + PATIENCE
    while not begun(lake) and process.poll() is None and time.monotonic() < end:
        time.sleep(0.01)


def kill_at_moment(process, lake, fault, usual):
    """SIGKILL one process of the capture, some time after its first commit."""
    wait_for_commit(process, lake)
    time.sleep(fault.moment * usual)
    if process.poll() is not None:
        return "finished before"
    names = {"core": "EngineCore", "worker": "Worker"}
    victims = [process.pid]
    if fault.target in names:
        children = psutil.Process(process.pid).children(recursive=True)
        titled = [one for one in children if names[fault.target] in " ".join(one.cmdline())]
        if not titled:
            return f"no {fault.target} found"
        victims = [titled[0].pid]
    for victim in victims:
        os.kill(victim, signal.SIGKILL)
    return "killed"


def end_children(process):
    """What a killed driver left: vLLM's processes end by themselves, a little later."""
    end = time.monotonic() + 60
    pattern = str(process.args[process.args.index("--lake") + 1])
    while time.monotonic() < end:
        left = [
            one
            for one in psutil.process_iter(["cmdline", "name"])
            if one.pid != os.getpid()
            and (
                pattern in " ".join(one.info["cmdline"] or ())
                or "VLLM::" in (one.info["name"] or "")
            )
        ]
        if not left:
            return
        time.sleep(0.2)


def capture(model, lake, layout, step=None):
    return subprocess.Popen(
        command(model, lake, layout),
        env=environment(layout, step),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process):
    try:
        _, told = process.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        _, told = process.communicate()
        raise SystemExit(f"a capture did not end in {PATIENCE:.0f} s:\n{told[-2000:]}") from None
    return process.returncode, told


def play(number, seed, folder, usual):
    """One round; ``usual``: seconds from a capture's first commit to its end."""
    fault = Fault.of_round(seed, number)
    model, whole, lake = (folder / name for name in ("model", "whole", f"round-{number}"))
    process = capture(model, lake, fault.layout, fault.step)
    outcome = "killed" if fault.step else kill_at_moment(process, lake, fault, usual)
    first_code, _ = finish(process)
    end_children(process)
    if fault.step and first_code == 0:
        outcome = "the step did not come so often"
    before, faults_before = 0, []
    if (lake / "runs" / "_delta_log").is_dir() and list((lake / "runs" / "_delta_log").iterdir()):
        opened = Lake.open(lake)
        if opened.runs():
            before = len(opened.request_status("r"))
            found = verify_lake(opened, None, repair=False, checked=lambda _: None).faults
            faults_before = [one for one in found if one.check not in HIDDEN_UNTIL_RESUMED]
    code, told = finish(capture(model, lake, fault.layout))
    if code != 0:
        raise SystemExit(f"round {number}: the same command failed with {code}:\n{told[-3000:]}")
    after = verify_lake(Lake.open(lake), None, repair=False, checked=lambda _: None).faults
    result = compare(lake, whole)
    entry = {
        "round": number,
        "seed": seed,
        "layout": fault.layout,
        "step": fault.step,
        "target": None if fault.step else fault.target,
        "outcome": outcome,
        "exit_code": first_code,
        "requests_before": before,
        "faults_before": [one.to_dict() for one in faults_before],
        "faults_after": [one.to_dict() for one in after],
        **result.to_dict(),
    }
    entry["ok"] = result.ok and not faults_before and not after
    return entry


def main():
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--first", type=int, default=0, help="number of the first round")
    options.add_argument("--seed", default="0")
    options.add_argument("--folder", type=Path, required=True, help="for lakes; kept if it fails")
    options.add_argument("--log", type=Path, default=Path("torture.jsonl"))
    chosen = options.parse_args()
    chosen.folder.mkdir(parents=True, exist_ok=True)
    chosen.log.parent.mkdir(parents=True, exist_ok=True)
    model, whole = chosen.folder / "model", chosen.folder / "whole"
    if not model.exists():
        subprocess.run([sys.executable, "-m", "tracer", "demo-model", str(model)], check=True)
    # Of an earlier part of the same rounds it is there already, and says so at once.
    process = capture(model, whole, "one process")
    wait_for_commit(process, whole)
    began = time.monotonic()
    code, told = finish(process)
    if code != 0:
        raise SystemExit(told[-3000:])
    timing = chosen.folder / "seconds"
    if not timing.exists():
        timing.write_text(str(time.monotonic() - began))
    usual = float(timing.read_text())
    failed = 0
    for number in range(chosen.first, chosen.first + chosen.rounds):
        entry = play(number, chosen.seed, chosen.folder, usual)
        with chosen.log.open("a", encoding="utf-8") as log:
            log.write(json.dumps(entry) + "\n")
        print(json.dumps(entry), flush=True)
        failed += not entry["ok"]
    print(json.dumps({"rounds": chosen.rounds, "seed": chosen.seed, "failed": failed}))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
