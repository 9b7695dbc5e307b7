"""Jobs on runs that are in the lake: each step once, good runs, breaches, what a scheduler sees."""

import contextlib
import json

import pytest

from tests.jobs.conftest import JOB, QUICK
from tracer.errors import InputError
from tracer.store.lake import Lake
from tracer.workflow import job as job_module
from tracer.workflow.job import accept_run, run_job
from tracer.workflow.job_combination import chosen, combinations
from tracer.workflow.job_load import load_job
from tracer.workflow.job_lock import hold_combination

NIGHTS = [f"2026-03-0{n}" for n in range(1, 6)]


def summary_of(told):
    return json.loads(told.stdout)["combinations"][0]


def statuses(one):
    return {name: step["status"] for name, step in one["steps"].items() if "status" in step}


def test_a_night_is_checked_audited_compared_and_reported_once(tracer, jobs):
    run_id = jobs.record(NIGHTS[0])

    first = tracer("job", "run", jobs.file, "--period", NIGHTS[0])

    assert first.exit_code == 0, first
    one = summary_of(first)
    assert (one["run_id"], one["status"], one["good"]) == (run_id, "passed", True)
    assert run_id.startswith(f"model-prompts-{NIGHTS[0]}-")
    assert statuses(one) == {
        "capture": "skipped", "verify": "done", "audit": "done", "compare": "done", "report": "done"
    }  # fmt: skip
    assert one["steps"]["compare"]["against"] is None
    assert one["steps"]["verify"]["requests"] == 24
    audited = json.loads((jobs.folder / f"audit-{NIGHTS[0]}.json").read_text())
    assert [layer["layer_id"] for layer in audited] == [0, 3]
    assert "Drift against" not in (jobs.folder / "report.html").read_text()

    times = [path.stat().st_mtime_ns for path in jobs.folder.glob("*.*")]
    again = tracer("job", "run", jobs.file, "--period", NIGHTS[0])
    assert again.exit_code == 0
    assert set(statuses(summary_of(again)).values()) == {"skipped"}
    assert [path.stat().st_mtime_ns for path in jobs.folder.glob("*.*")] == times


def test_a_lost_output_and_a_changed_job_are_made_again_alone(tracer, jobs):
    jobs.record(NIGHTS[0])
    tracer("job", "run", jobs.file, "--period", NIGHTS[0])
    (jobs.folder / "report.html").unlink()
    one = summary_of(tracer("job", "run", jobs.file, "--period", NIGHTS[0]))
    assert [name for name, status in statuses(one).items() if status == "done"] == ["report"]

    jobs.write(JOB.replace("draws: 9}", "draws: 3}"))
    one = summary_of(tracer("job", "run", jobs.file, "--period", NIGHTS[0]))
    assert [name for name, status in statuses(one).items() if status == "done"] == ["audit"]


def test_a_breach_ends_with_1_and_later_nights_meet_the_last_good_run(tracer, jobs):
    ids = [jobs.record(night, seed=n, moved=n == 1) for n, night in enumerate(NIGHTS[:3])]
    tracer("job", "run", jobs.file, "--period", NIGHTS[0])

    moved = tracer("job", "run", jobs.file, "--period", NIGHTS[1])

    assert moved.exit_code == 1
    assert json.loads(moved.stdout)["status"] == "breached"
    one = summary_of(moved)
    assert (one["status"], one["good"]) == ("breached", False)
    checks = {check["measure"]: check for check in one["steps"]["compare"]["checks"]}
    usage = checks["usage_drift"]
    assert usage["num_rows"] == 2
    assert (usage["num_beyond"], usage["num_breaches"]) == (1, 1)
    (row,) = [row for row in usage["rows"] if row["breach"]]
    assert row["layer_id"] == 3
    assert row["value"] == pytest.approx(0.5, abs=0.1)  # half of the choices of layer 3
    assert row["low"] <= row["value"] <= row["high"]
    assert row["p_adjusted"] == pytest.approx(1 / 10)
    assert "usage_drift.total_variation" in moved.stderr
    page = (jobs.folder / "report.html").read_text()
    assert f"Drift against run <bdi>{ids[0]}</bdi>" in page
    assert "limits are not kept" in page

    # Told again by the same night, without any work.
    again = tracer("job", "run", jobs.file, "--period", NIGHTS[1])
    assert (again.exit_code, set(statuses(summary_of(again)).values())) == (1, {"skipped"})

    third = tracer("job", "run", jobs.file, "--period", NIGHTS[2])
    assert third.exit_code == 0, third.stderr
    assert summary_of(third)["steps"]["compare"]["against"] == ids[0]
    assert "limits are kept" in (jobs.folder / "report.html").read_text()


def test_an_accepted_run_is_what_later_ones_are_compared_with(tracer, jobs):
    jobs.write(QUICK)
    ids = [jobs.record(night, seed=n, moved=n >= 1) for n, night in enumerate(NIGHTS[:3])]
    tracer("job", "accept", jobs.file, "--run", ids[1]).failed(2, "has not looked at")
    for night in NIGHTS[:2]:
        told = tracer("job", "run", jobs.file, "--period", night)
    assert told.exit_code == 1

    assert tracer("job", "accept", jobs.file, "--run", ids[1]).exit_code == 0

    assert tracer("job", "run", jobs.file, "--period", NIGHTS[1]).exit_code == 0
    third = tracer("job", "run", jobs.file, "--period", NIGHTS[2])
    assert third.exit_code == 0
    assert summary_of(third)["steps"]["compare"]["against"] == ids[1]


def test_a_comparison_tells_what_else_is_not_the_same(tracer, jobs):
    jobs.write(QUICK)
    ids = [jobs.record(NIGHTS[0])]
    tracer("job", "run", jobs.file, "--period", NIGHTS[0])
    jobs.write(QUICK + "options: {max_tokens: 4}\n")
    ids.append(jobs.record(NIGHTS[1], seed=1))
    one = summary_of(tracer("job", "run", jobs.file, "--period", NIGHTS[1]))
    compared = one["steps"]["compare"]
    assert compared["against"] == ids[0]
    assert compared["notes"][0] == "the earlier run and this one differ in max_tokens (16, 4)."


def test_a_fixed_reference_is_compared_with_every_night(tracer, jobs):
    ids = [jobs.record(night, seed=n) for n, night in enumerate(NIGHTS[:3])]
    jobs.write(QUICK.replace("drift: {", f"drift: {{against: {ids[0]}, "))
    for night in NIGHTS[:3]:
        told = tracer("job", "run", jobs.file, "--period", night)
        against = summary_of(told)["steps"]["compare"]["against"]
        assert against == (None if night == NIGHTS[0] else ids[0])


def test_missing_requests_can_be_a_limit(tracer, jobs):
    """24 complete, one too long, one aborted; two that the dataset keeps out are not missing."""
    statuses = ["skipped", "aborted", "uncaptured", "uncaptured"]
    jobs.write(QUICK)
    jobs.record(NIGHTS[0], without_rows=statuses)
    for most, exit_code in ((0.08, 0), (0.07, 1)):  # 2 of 28 are 0.0714
        jobs.write(QUICK + f"verify: {{max_dropped: {most}}}\n")
        told = tracer("job", "run", jobs.file, "--period", NIGHTS[0])
        assert told.exit_code == exit_code, told.stderr
        assert summary_of(told)["steps"]["verify"]["dropped"] == 2
    assert "verify: 2 of 28 requests are missing, at most 7.0% may" in told.stderr


def test_verdicts_can_be_limits_too(tracer, jobs):
    jobs.record(NIGHTS[0])
    jobs.write(JOB.replace("draws: 9}", "draws: 19, require: [agreement, differences]}"))
    assert tracer("job", "run", jobs.file, "--period", NIGHTS[0]).exit_code == 0
    jobs.write(JOB.replace("draws: 9}", "draws: 0, require: [agreement]}"))
    told = tracer("job", "run", jobs.file, "--period", NIGHTS[0])
    assert told.exit_code == 1
    assert "no draws, no verdict" in told.stderr


def test_damage_fails_a_night_with_3_before_anything_is_made_of_it(tracer, jobs):
    run_id = jobs.record(NIGHTS[0])
    (file,) = (jobs.folder / "lake" / "routing" / run_id).glob("*.parquet")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 255
    file.write_bytes(content)

    told = tracer("job", "run", jobs.file, "--period", NIGHTS[0])

    assert told.exit_code == 3
    one = summary_of(told)
    assert (one["status"], one["good"]) == ("failed", False)
    assert "faults" in one["error"]["message"]
    assert "tracer verify --run" in one["error"]["hint"]
    assert not (jobs.folder / "report.html").exists()
    assert not list(jobs.folder.glob("audit-*"))


SEVERAL = """
models: [model, {model: other, engine: [--enforce-eager]}]
datasets: [prompts.jsonl, {dataset: gone.jsonl, name: lost}]
lake: lake
audit: {output: "{model}-{dataset}.json", draws: 0}
"""


def test_one_combination_that_fails_stops_no_other(tracer, jobs):
    (jobs.folder / "other").mkdir()
    (jobs.folder / "other" / "config.json").write_text("{}")
    jobs.write(SEVERAL)
    ids = [jobs.record(only=(name,)) for name in ("model/prompts", "other/prompts")]

    told = tracer("job", "run", jobs.file)

    assert told.exit_code == 2
    summary = json.loads(told.stdout)
    assert (summary["status"], summary["exit_code"]) == ("failed", 2)
    found = [(c["model"], c["dataset"], c["status"]) for c in summary["combinations"]]
    assert found == [
        ("model", "prompts", "passed"),
        ("model", "lost", "failed"),
        ("other", "prompts", "passed"),
        ("other", "lost", "failed"),
    ]
    assert [c["run_id"] for c in summary["combinations"]] == [ids[0], None, ids[1], None]
    assert told.stderr.count("gone.jsonl") == 2
    assert sorted(path.name for path in jobs.folder.glob("*-prompts.json")) == [
        "model-prompts.json",
        "other-prompts.json",
    ]

    alone = tracer("job", "run", jobs.file, "--only", "3")
    assert alone.exit_code == 0
    assert summary_of(alone)["run_id"] == ids[1]
    tracer("job", "run", jobs.file, "--only", "5").failed(2, "no combination '5'")


def test_a_second_start_of_a_job_is_told_and_does_nothing(jobs):
    run_id = jobs.record(NIGHTS[0])
    job = load_job(jobs.file)
    told = []

    def meanwhile(words):
        if words.endswith("audit"):
            with pytest.raises(InputError, match="at work on model/prompts already") as refused:
                run_job(job, period=NIGHTS[0])
            told.append(refused.value.hint)
            with pytest.raises(InputError, match="at work on model/prompts already"):
                accept_run(job, run_id)

    assert run_job(job, period=NIGHTS[0], note=meanwhile)["exit_code"] == 0
    assert len(told) == 1


def test_combinations_whose_names_run_together_have_locks_of_their_own(jobs):
    """model.a with prompts, and model with a.prompts."""
    names = [("model.a", "prompts"), ("model", "a.prompts")]
    jobs.write(
        "models: [{model: model, name: model.a}, model]\n"
        "datasets: [prompts.jsonl, {dataset: prompts.jsonl, name: a.prompts}]\nlake: lake\n"
    )
    wanted = chosen(combinations(load_job(jobs.file)), ["/".join(pair) for pair in names])
    with contextlib.ExitStack() as stack:
        for combination in wanted:
            hold_combination(jobs.folder / "lake", combination, stack)
        with pytest.raises(InputError, match="already"):
            hold_combination(jobs.folder / "lake", wanted[0], stack)


def test_the_same_settings_make_a_new_run_each_period_and_other_settings_too(jobs):
    ids = {jobs.record(night) for night in NIGHTS[:2]}
    jobs.write(JOB + "options: {max_tokens: 4}\n")
    ids.add(jobs.record(NIGHTS[1]))
    assert len(ids) == 3
    assert {row["run_id"] for row in jobs.lake.runs()} == ids


def test_a_run_of_that_name_with_other_settings_is_refused(tracer, jobs):
    named = JOB + 'options: {run_id: "{period}"}\n'
    jobs.write(named)
    assert jobs.record(NIGHTS[0]) == NIGHTS[0]
    assert tracer("job", "run", jobs.file, "--period", NIGHTS[0]).exit_code == 0
    jobs.write(named.replace("{run_id", "{max_tokens: 4, run_id"))
    told = tracer("job", "run", jobs.file, "--period", NIGHTS[0])
    assert told.exit_code == 2
    assert "other settings: max_tokens" in told.stderr


def test_retention_keeps_good_runs_and_what_is_younger(tracer, jobs):
    ids = [jobs.record(night, seed=n, moved=n in {1, 3}) for n, night in enumerate(NIGHTS)]
    jobs.write(QUICK + "retention: {runs: 2, keep_hours: 0}\n")

    def held():
        return [row["run_id"] for row in jobs.lake.runs()]

    for night in NIGHTS[:4]:
        told = tracer("job", "run", jobs.file, "--period", night)
    assert told.exit_code == 1
    assert held() == ids  # good are the first and the third
    fifth = tracer("job", "run", jobs.file, "--period", NIGHTS[4])
    assert summary_of(fifth)["steps"]["retention"]["runs_removed"] == ids[:2]
    assert held() == ids[2:]
    assert not (jobs.folder / "lake" / "routing" / ids[0]).exists() or not list(
        (jobs.folder / "lake" / "routing" / ids[0]).glob("*.parquet")
    )
    assert tracer("verify", "--lake", jobs.folder / "lake").exit_code == 0
    again = tracer("job", "run", jobs.file, "--period", NIGHTS[4])
    assert summary_of(again)["steps"]["compare"] == {
        **summary_of(fifth)["steps"]["compare"], "status": "skipped"
    }  # fmt: skip


def test_retention_never_removes_the_last_good_run_or_the_one_compared_with(tracer, jobs):
    """Days: all runs but the last are of January; the second breaks a limit and is not good."""
    ids = [jobs.record(night, seed=n, moved=n >= 1) for n, night in enumerate(NIGHTS[:3])]
    lake = Lake.open(jobs.folder / "lake")
    for number, run_id in enumerate(ids[:2]):
        row = lake.run(run_id)
        lake.put_run({**row, "started_at": row["started_at"].replace(year=2025, day=1 + number)})
    jobs.write(QUICK + "retention: {days: 1}\n")
    for night in NIGHTS[:2]:
        tracer("job", "run", jobs.file, "--period", night)
    assert len(lake.runs()) == 3
    third = tracer("job", "run", jobs.file, "--period", NIGHTS[2])
    assert third.exit_code == 1
    assert summary_of(third)["steps"]["compare"]["against"] == ids[0]
    assert [row["run_id"] for row in lake.runs()] == [ids[0], ids[2]]


def test_retention_removes_runs_that_were_never_finished(tracer, jobs, monkeypatch):
    jobs.write(QUICK + "retention: {runs: 1}\n")
    ids = [jobs.record(NIGHTS[0])]
    tracer("job", "run", jobs.file, "--period", NIGHTS[0])

    def cut_off(*_, **__):
        ids.append(jobs.record(NIGHTS[1], whole=False))
        raise KeyboardInterrupt

    monkeypatch.setattr(job_module, "capture_dataset", cut_off)
    assert tracer("job", "run", jobs.file, "--period", NIGHTS[1]).exit_code == 130
    ids.append(jobs.record(NIGHTS[2], seed=2))
    told = tracer("job", "run", jobs.file, "--period", NIGHTS[2])
    assert summary_of(told)["steps"]["compare"]["against"] == ids[0]
    # The run compared with stays; the next night it goes with what is as old.
    removed = summary_of(told)["steps"]["retention"]["runs_removed"]
    assert removed == [ids[1]]
    assert [row["run_id"] for row in jobs.lake.runs()] == [ids[0], ids[2]]


def test_retention_finishes_a_removal_that_was_interrupted(tracer, jobs):
    ids = [jobs.record(night, seed=n) for n, night in enumerate(NIGHTS[:2])]
    jobs.write(QUICK + "retention: {runs: 1}\n")
    tracer("job", "run", jobs.file, "--period", NIGHTS[0])
    jobs.lake.delta("runs").delete(f"run_id = '{ids[0]}'")  # what a removal begins with
    assert jobs.lake.named_files("routing", ids[0])
    told = tracer("job", "run", jobs.file, "--period", NIGHTS[1])
    assert summary_of(told)["steps"]["retention"]["runs_removed"] == [ids[0]]
    assert not jobs.lake.named_files("routing", ids[0])
    records = jobs.folder / "lake" / "_tracer" / "jobs" / "nightly"
    assert [path.stem for path in records.iterdir()] == [ids[1]]


def test_runs_of_others_are_never_removed(tracer, jobs):
    jobs.write(QUICK)
    ids = [jobs.record(night, seed=n) for n, night in enumerate(NIGHTS[:3])]
    for night in NIGHTS[:2]:
        tracer("job", "run", jobs.file, "--period", night)
    jobs.write(QUICK.replace("nightly", "other") + "retention: {runs: 1}\n")
    tracer("job", "run", jobs.file, "--period", NIGHTS[2])
    assert [row["run_id"] for row in jobs.lake.runs()] == ids


def test_new_runs_are_compacted_if_asked(tracer, jobs):
    jobs.record(NIGHTS[0])
    jobs.write(QUICK + "retention: {compact: true}\n")
    one = summary_of(tracer("job", "run", jobs.file, "--period", NIGHTS[0]))
    assert one["steps"]["compact"]["status"] == "done"
    assert one["steps"]["compact"]["files_after"] > 0
