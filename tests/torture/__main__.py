"""Kills captures anywhere, resumes them, and compares: `make torture ROUNDS=50 SEED=1`.

A round runs a real vLLM capture of the bundled prompts and ends one of its processes with SIGKILL:
at a named step of writing, or at a random moment. Then the same command runs again, without any
other step, and the lake must be what an uninterrupted capture makes. Each round appends one line
of JSON to the log; rounds of a seed are always the same, so a run may be cut into parts with FIRST.
"""

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psutil

from tests.engine.engine_process import EngineProcess
from tests.torture.compare import compare
from tests.torture.kill_at import STEPS
from tracer.errors import LakeBusyError
from tracer.store.lake import Lake
from tracer.workflow.verify import verify_lake

HERE = Path(__file__).parent
PATIENCE = 300.0  # seconds, for any one process
KV_CACHE = 2**26  # bytes, which vLLM fills with zeros at each start; of 16 short sequences
# What a crash may leave of one batch whose tables were not all committed, until it is resumed: rows
# of requests that `requests` does not name, which no view shows.
UNTIL_RESUMED = {"strangers"}
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


class Captures:
    """Starts captures of the bundled prompts, and knows what an undisturbed one makes."""

    def __init__(self, engine, folder):
        self._engine = engine
        self.folder = folder
        self.whole = folder / "whole"

    def new_lake(self, name):
        """A path where nothing is, also when an earlier run failed there."""
        shutil.rmtree(self.folder / name, ignore_errors=True)
        return self.folder / name

    def start(self, lake, layout, *, step=None, run_id="r"):
        workers = ["--tensor-parallel-size", "2"] if layout == "two workers" else []
        return self._engine.start(
            "capture", "--model", self.folder / "model", "--dataset", "demo", "--lake", lake,
            "--run-id", run_id, "--max-tokens", "8", "--ignore-eos", "--dtype", "float32",
            "--weight-precision", "f32", "--router-logits", "--enforce-eager",
            "--max-num-seqs", "16", "--kv-cache-memory-bytes", str(KV_CACHE), "--format", "json",
            *workers,
            code=HERE / "small_batches.py",
            env=LAYOUTS[layout] | ({"TORTURE_STEP": step} if step else {}),
        )  # fmt: skip


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
    victim = process.pid
    if fault.target in names:
        children = psutil.Process(process.pid).children(recursive=True)
        titled = [one for one in children if names[fault.target] in title(one)]
        if not titled:
            return f"no {fault.target} found"
        victim = titled[0].pid
    try:
        os.kill(victim, signal.SIGKILL)
    except ProcessLookupError:
        return "finished before"
    return "killed"


def title(process):
    try:
        return " ".join(process.cmdline())
    except psutil.Error:  # it has ended
        return ""


def session_of(process):
    """Processes that a capture started and that run on without it."""
    found = []
    for one in psutil.process_iter(["status", "name"]):
        try:
            if os.getsid(one.pid) == process.pid and one.info["status"] != psutil.STATUS_ZOMBIE:
                found.append(one)
        except ProcessLookupError:
            continue
    return found


def finish(process):
    """How a capture ended, and the names of processes that it left behind, which are ended here."""
    done = process.wait(timeout=PATIENCE)
    end = time.monotonic() + 30
    while (left := session_of(process)) and time.monotonic() < end:
        time.sleep(0.05)
    for one in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            one.kill()
    return done, [one.info["name"] for one in left]


def faults_of(lake):
    return verify_lake(Lake.open(lake), None, repair=False, checked=lambda _: None).faults


def play(number, seed, captures, usual):
    """One round; ``usual``: seconds from a capture's first commit to its end."""
    fault = Fault.of_round(seed, number)
    lake = captures.new_lake(f"round-{number}")
    process = captures.start(lake, fault.layout, step=fault.step)
    outcome = "killed" if fault.step else kill_at_moment(process, lake, fault, usual)
    first, left_behind = finish(process)
    if first.exit_code == 0 and outcome == "killed":  # or as it ended
        outcome = "the step did not come so often" if fault.step else "finished before"
    before, faults_before = 0, []
    if (lake / "runs" / "_delta_log").is_dir() and list((lake / "runs" / "_delta_log").iterdir()):
        opened = Lake.open(lake)
        if opened.runs():
            before = len(opened.request_status("r"))
            faults_before = [one for one in faults_of(lake) if one.check not in UNTIL_RESUMED]
    again, _ = finish(captures.start(lake, fault.layout))
    if again.exit_code != 0:
        raise SystemExit(
            f"round {number}: the same command failed with {again.exit_code}:\n"
            f"{again.stderr[-3000:]}"
        )
    after = faults_of(lake)
    result = compare(lake, captures.whole)
    entry = {
        "round": number,
        "seed": seed,
        "layout": fault.layout,
        "step": fault.step,
        "target": None if fault.step else fault.target,
        "outcome": outcome,
        "exit_code": first.exit_code,
        "left_behind": left_behind,
        "requests_before": before,
        "faults_before": [one.to_dict() for one in faults_before],
        "faults_after": [one.to_dict() for one in after],
        **result.to_dict(),
    }
    # A driver whose engine was killed says so: exit code 4.
    expected = first.exit_code in ({-9, 4} if outcome == "killed" else {0})
    entry["ok"] = expected and result.ok and not (faults_before or after or left_behind)
    return lake, entry


def two_runs_at_once(captures):
    """Different runs into one lake, which neither finds there: both must be whole."""
    lake = captures.new_lake("two-runs")
    started = {
        run_id: captures.start(lake, layout, run_id=run_id)
        for run_id, layout in (("a", "one process"), ("b", "engine core apart"))
    }
    done = {run_id: finish(process)[0] for run_id, process in started.items()}
    told = [one.stderr[-3000:] for one in done.values() if one.exit_code != 0]
    entry = {
        "round": "two runs at once",
        "exit_codes": [one.exit_code for one in done.values()],
        "told": told,
        "ok": not told,
    }
    if not told:
        after = faults_of(lake)
        results = {run_id: compare(lake, captures.whole, run_id) for run_id in done}
        entry["faults_after"] = [one.to_dict() for one in after]
        entry["runs"] = {run_id: result.to_dict() for run_id, result in results.items()}
        entry["ok"] = not after and all(result.ok for result in results.values())
    return lake, entry


def one_run_twice_at_once(captures):
    """One of the two must be refused, in the words made for it, and change nothing."""
    lake = captures.new_lake("one-run-twice")
    started = [captures.start(lake, "one process") for _ in range(2)]
    done = [finish(process)[0] for process in started]
    winner, loser = sorted(done, key=lambda one: one.exit_code != 0)
    busy = LakeBusyError("r")
    told = [line for line in loser.stderr.splitlines() if not line.startswith("tracer: ")]
    refused = loser.exit_code == busy.exit_code and told == [f"Error: {busy}", f"Hint: {busy.hint}"]
    after, result = faults_of(lake), compare(lake, captures.whole)
    entry = {
        "round": "one run twice at once",
        "exit_codes": [winner.exit_code, loser.exit_code],
        "told": told,
        "faults_after": [one.to_dict() for one in after],
        **result.to_dict(),
    }
    entry["ok"] = winner.exit_code == 0 and refused and not after and result.ok
    return lake, entry


AT_ONCE = (two_runs_at_once, one_run_twice_at_once)


def make_whole(captures):
    """An undisturbed capture. Returns the seconds from its first commit to its end.

    Of an earlier part of the same rounds it is there already, and says so at once.
    """
    process = captures.start(captures.whole, "one process")
    wait_for_commit(process, captures.whole)
    began = time.monotonic()
    done, _ = finish(process)
    if done.exit_code != 0:
        raise SystemExit(done.stderr[-3000:])
    timing = captures.folder / "seconds"
    if not timing.exists():
        timing.write_text(str(time.monotonic() - began))
    return float(timing.read_text())


def main():
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--first", type=int, default=0, help="number of the first round")
    options.add_argument("--seed", default="0")
    options.add_argument("--folder", type=Path, required=True, help="for lakes; kept if it fails")
    options.add_argument("--log", type=Path, default=Path("torture.jsonl"))
    chosen = options.parse_args()
    folder = chosen.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    chosen.log.parent.mkdir(parents=True, exist_ok=True)
    model = folder / "model"
    if not model.exists():
        subprocess.run([sys.executable, "-m", "tracer", "demo-model", str(model)], check=True)
    engine = EngineProcess(folder)
    captures = Captures(engine, folder)
    usual = make_whole(captures)
    numbers = range(chosen.first, chosen.first + chosen.rounds)
    rounds = [partial(play, number, chosen.seed, captures, usual) for number in numbers]
    failed = 0
    for one in [*rounds, *(partial(kind, captures) for kind in AT_ONCE)]:
        began = time.monotonic()
        lake, entry = one()
        entry["seconds"] = round(time.monotonic() - began, 1)
        with chosen.log.open("a", encoding="utf-8") as log:
            log.write(json.dumps(entry) + "\n")
        print(json.dumps(entry), flush=True)
        failed += not entry["ok"]
        if entry["ok"]:
            shutil.rmtree(lake)
    engine.close()
    print(json.dumps({"rounds": chosen.rounds, "seed": chosen.seed, "failed": failed}))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
