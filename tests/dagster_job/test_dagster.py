"""A job by Dagster, in an environment of its own: `make test-dagster`.

Runs are in the lake already, so no engine is needed.
"""

import os
import runpy
import subprocess
import sys
import time
from pathlib import Path

import dagster as dg
import pytest

from tests.jobs.conftest import QUICK, jobs, tracer
from tracer.dagster import PERIOD_TAG, definitions
from tracer.workflow.job_combination import combinations
from tracer.workflow.job_load import load_job

__all__ = ["jobs", "tracer"]

NIGHTS = ("2026-03-01", "2026-03-02")
KEY = dg.MultiPartitionKey({"model": "model", "dataset": "prompts"})
STEPS = ["capture", "verify", "compare", "judge"]


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    folder = tmp_path / "home"
    folder.mkdir()
    (folder / "dagster.yaml").write_text(
        "telemetry: {enabled: false}\n"
        "code_servers: {local_startup_timeout: 600}\n"
        "concurrency: {runs: {max_concurrent_runs: 1}}\n"
    )
    monkeypatch.setenv("DAGSTER_HOME", str(folder))
    return folder


def materialised(file, night, instance):
    assets = list(definitions(file).assets)
    return dg.materialize(
        assets,
        instance=instance,
        partition_key=KEY,
        tags={PERIOD_TAG: night},
        raise_on_error=False,
    )


def checks(result):
    return {e.asset_key.path[-1]: e.passed for e in result.get_asset_check_evaluations()}


def test_assets_do_the_steps_and_their_checks_say_what_passed(jobs, tracer):
    jobs.write(QUICK)
    ids = [jobs.record(night, seed=n, moved=n == 1) for n, night in enumerate(NIGHTS)]
    with dg.DagsterInstance.ephemeral() as instance:
        first = materialised(jobs.file, NIGHTS[0], instance)
        assert first.success
        assert checks(first) == {"verify": True, "compare": True, "judge": True}
        names = [e.asset_key.path for e in first.get_asset_materialization_events()]
        assert names == [["nightly", step] for step in STEPS]

        moved = materialised(jobs.file, NIGHTS[1], instance)
        assert moved.success
        assert checks(moved) == {"verify": True, "compare": False, "judge": False}
        (failed,) = [
            e for e in moved.get_asset_check_evaluations() if e.asset_key.path[-1] == "compare"
        ]
        assert "usage_drift.total_variation" in failed.description
    # The command finds everything done, and the same verdict.
    told = tracer("job", "run", jobs.file, "--period", NIGHTS[1])
    assert told.exit_code == 1
    assert told.stdout.count('"skipped"') == 3
    assert ids[0] in told.stdout


def test_damage_fails_an_asset_and_is_not_tried_again(jobs):
    jobs.write(QUICK)
    run_id = jobs.record(NIGHTS[0])
    (file,) = (jobs.folder / "lake" / "routing" / run_id).glob("*.parquet")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 255
    file.write_bytes(content)
    with dg.DagsterInstance.ephemeral() as instance:
        result = materialised(jobs.file, NIGHTS[0], instance)
    assert not result.success
    (failure,) = result.get_step_failure_events()
    assert failure.step_key.endswith("verify")
    assert "faults" in failure.step_failure_data.user_failure_data.description


def test_the_schedule_asks_for_every_combination_of_the_period(jobs):
    jobs.write("{models: [model, other], datasets: [demo, mmlu], every: day}")
    made = definitions(jobs.file)
    (schedule,) = made.schedules
    assert schedule.cron_schedule == "30 2 * * *"
    assert schedule.default_status == dg.DefaultScheduleStatus.STOPPED
    with dg.DagsterInstance.ephemeral() as instance:
        context = dg.build_schedule_context(instance, repository_def=made.get_repository_def())
        requests = schedule.evaluate_tick(context).run_requests
    (period,) = {one.period for one in combinations(load_job(jobs.file))}
    assert {r.run_key for r in requests} == {
        f"{period} {model}/{data}" for model in ("model", "other") for data in ("demo", "mmlu")
    }
    assert {r.tags[PERIOD_TAG] for r in requests} == {period}


def test_the_example_has_an_asset_for_every_step():
    path = Path(__file__).parents[2] / "pipelines" / "dagster_nightly.py"
    made = runpy.run_path(str(path))["defs"]
    keys = [key.path for asset in made.assets for key in asset.keys]
    steps = ["verify", "compact", "audit_1", "audit_2", "compare", "report", "judge"]
    assert keys == [["nightly", step] for step in ["capture", *steps]]


def test_a_real_daemon_starts_the_job_by_its_schedule(jobs, home):
    """Two processes of Dagster's own: its daemon, and the run that a tick of it starts."""
    jobs.write(QUICK)
    jobs.record()
    code = jobs.folder / "nightly_dagster.py"
    code.write_text(
        "from pathlib import Path\n"
        "from tracer.dagster import definitions\n"
        f"defs = definitions(Path({str(jobs.file)!r}), cron='*/2 * * * *')\n"
    )
    root = str(Path(__file__).parents[2])
    # A busy machine takes its time.
    patience = {f"DAGSTER_{kind}GRPC_TIMEOUT_SECONDS": "600" for kind in ("", "SCHEDULE_")}
    environment = {**os.environ, **patience, "PYTHONPATH": root}
    daemon = Path(sys.executable).with_name("dagster-daemon")
    with (jobs.folder / "daemon.log").open("w") as log:
        process = subprocess.Popen(
            [daemon, "run", "-f", code], env=environment, stdout=log, stderr=log, cwd=jobs.folder
        )
        try:
            with dg.DagsterInstance.from_config(str(home)) as instance:
                end = time.monotonic() + 1200
                runs = []
                while time.monotonic() < end and not (runs and runs[-1].is_finished):
                    time.sleep(2)
                    assert process.poll() is None, (jobs.folder / "daemon.log").read_text()
                    runs = instance.get_runs()
                assert runs, (jobs.folder / "daemon.log").read_text()[-3000:]
                first = runs[-1]  # a later tick finds it at work, or all done
                assert first.is_success, first
                assert first.tags[PERIOD_TAG]
                assert first.tags["dagster/schedule_name"] == "every_period"
        finally:
            process.terminate()
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
