"""Plans: what a job would do and why, without an engine and without a trace in the lake."""

import json
import subprocess
import sys

from tests.jobs.conftest import JOB, QUICK

NIGHT, NEXT = "2026-03-01", "2026-03-02"


def planned(tracer, jobs, *words):
    told = tracer("job", "plan", jobs.file, "--format", "json", *words)
    assert told.exit_code == 0, told
    return json.loads(told.stdout)


def actions(steps):
    return {step["step"]: step["action"] for step in steps}


def test_nothing_is_there_yet(tracer, jobs):
    steps = planned(tracer, jobs, "--period", NIGHT)
    assert actions(steps) == dict.fromkeys(
        ("capture", "verify", "audit", "compare", "report"), "do"
    )
    assert "24 requests" in steps[0]["why"]
    assert not (jobs.folder / "lake").exists()


def test_a_plan_says_what_a_run_then_does(tracer, jobs):
    jobs.record(NIGHT)
    before = actions(planned(tracer, jobs, "--period", NIGHT))
    assert before.pop("capture") == "skip"
    assert set(before.values()) == {"do"}
    assert tracer("job", "run", jobs.file, "--period", NIGHT).exit_code == 0
    assert set(actions(planned(tracer, jobs, "--period", NIGHT)).values()) == {"skip"}

    (jobs.folder / "report.html").unlink()
    left = [s for s in planned(tracer, jobs, "--period", NIGHT) if s["action"] != "skip"]
    assert [(s["step"], s["why"].endswith("report.html is gone")) for s in left] == [
        ("report", True)
    ]
    jobs.write(JOB.replace("alpha: 0.1", "alpha: 0.2"))
    left = [s["step"] for s in planned(tracer, jobs, "--period", NIGHT) if s["action"] != "skip"]
    assert left == ["compare", "report"]
    assert "prompts" in tracer("job", "plan", jobs.file, "--period", NIGHT).stdout


def test_an_interrupted_capture_is_to_be_resumed(tracer, jobs):
    jobs.record(NIGHT, whole=False)
    first, *rest = planned(tracer, jobs, "--period", NIGHT)
    assert (first["action"], first["why"]) == ("resume", "24 of 24 requests are there")
    assert {step["why"] for step in rest} == {"after the capture"}


def test_what_would_be_removed_is_named(tracer, jobs):
    ids = [jobs.record(night, seed=n) for n, night in enumerate((NIGHT, NEXT))]
    jobs.write(QUICK + "retention: {runs: 1}\n")
    for night in (NIGHT, NEXT):
        *_, last = planned(tracer, jobs, "--period", night)
        assert last["action"] == "skip"
        if night == NIGHT:
            tracer("job", "run", jobs.file, "--period", night)
    jobs.write(QUICK)
    tracer("job", "run", jobs.file, "--period", NEXT)
    third = jobs.record("2026-03-03", seed=3)
    tracer("job", "run", jobs.file, "--period", "2026-03-03")
    jobs.write(QUICK + "retention: {runs: 1}\n")
    *_, last = planned(tracer, jobs, "--period", "2026-03-03")
    assert last["action"] == "do"
    assert last["why"] == f"removes {ids[0]}"  # the second is the one compared with
    assert third not in last["why"]


def test_a_dataset_that_is_not_there_fails_its_own_combination(tracer, jobs):
    jobs.write("{model: model, datasets: [prompts.jsonl, gone.jsonl]}")
    steps = planned(tracer, jobs)
    assert [(s["dataset"], s["step"], s["action"]) for s in steps] == [
        ("prompts", "capture", "do"),
        ("prompts", "verify", "do"),
        ("gone", "capture", "fail"),
    ]
    assert "gone.jsonl" in steps[-1]["why"]


def test_wrong_periods_are_refused(tracer, jobs):
    tracer("job", "plan", jobs.file, "--period", "2026-02-30").failed(2, "no period", "2026-11-27")
    jobs.write(JOB.replace("every: day", "every: week"))
    assert planned(tracer, jobs, "--period", "2026-W09")
    tracer("job", "plan", jobs.file, "--period", "2026-W60").failed(2, "no period")
    jobs.write("{model: model, dataset: prompts.jsonl}")
    tracer("job", "plan", jobs.file, "--period", NIGHT).failed(2, "runs once")


def test_plan_and_a_job_whose_runs_are_there_load_no_engine(jobs):
    jobs.write(QUICK)
    jobs.record(NIGHT)
    code = (
        "import sys\nfrom tracer.cli import run\n"
        "codes = [run(['job', word, sys.argv[1], '--period', sys.argv[2]])"
        " for word in ('plan', 'run')]\n"
        "print(codes, sorted({'torch', 'vllm'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, jobs.file, NIGHT], capture_output=True, text=True, check=True
    )
    assert done.stderr.splitlines()[-1] == "[0, 0] []"
