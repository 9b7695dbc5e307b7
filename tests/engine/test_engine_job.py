"""A job on the real engine: killed, resumed, the next night, another model under the same name."""

import json
import shutil
import signal

import pytest

from tests.engine.conftest import dies_after_two_commits
from tracer.demo import write_demo_model

pytestmark = pytest.mark.engine

JOB = """
models:
  - {model: one, name: first}
  - {model: two, name: second}
datasets: [{dataset: demo, limit: 48}]
lake: lake
every: day
options: {max_tokens: 4}
engine: [--enforce-eager, --max-num-seqs, "8"]
audit: {output: "{run_id}.json", draws: 0}
drift:
  draws: 19
  alpha: 0.1
  limits: {usage_drift.total_variation: 0.05, router_saturation.saturation: {min: 0.95}}
report: {output: "{model}.html", draws: 0}
"""
NIGHTS = ("2026-03-01", "2026-03-02", "2026-03-03")


@pytest.fixture
def job(engine, planted_model, tmp_path):
    """(words, code) -> (exit code, stdout read as JSON, stderr) of `tracer job` on a job of two."""
    for name, architecture in (("one", "olmoe"), ("two", "qwen3_moe")):
        shutil.copytree(planted_model(architecture), tmp_path / name)
    (tmp_path / "job.yaml").write_text(JOB)

    def call(command, *words, code=None):
        words = ["job", command, tmp_path / "job.yaml", *words]
        if command == "plan":
            words += ["--format", "json"]
        done = engine.run(*words, code=code, cwd=tmp_path)
        read = json.loads(done.stdout) if done.stdout else None
        return done.exit_code, read, done.stderr

    return call


def captures(summary):
    return [one["steps"]["capture"]["status"] for one in summary["combinations"]]


def test_a_job_is_killed_resumed_repeated_and_finds_another_model(job, tmp_path):
    dies = tmp_path / "dies.py"
    dies.write_text(dies_after_two_commits(shard_choices=1000))
    night = ("--period", NIGHTS[0])
    assert job("run", *night, code=dies)[0] == -signal.SIGKILL

    _, plan, _ = job("plan", *night)
    first, second = [step for step in plan if step["step"] == "capture"]
    assert (first["action"], second["action"]) == ("resume", "do")
    there = int(first["why"].split()[0])
    assert 0 < there < 48

    exit_code, summary, stderr = job("run", *night)
    assert exit_code == 0, stderr[-3000:]
    assert captures(summary) == ["resumed", "done"]
    one, two = summary["combinations"]
    assert one["steps"]["capture"]["resumed_requests"] == there
    assert one["steps"]["verify"]["requests"] == two["steps"]["verify"]["requests"] == 48
    assert [c["steps"]["compare"]["against"] for c in (one, two)] == [None, None]

    exit_code, summary, _ = job("run", *night)
    assert (exit_code, captures(summary)) == (0, ["skipped", "skipped"])

    # The next night: a new run of equal settings, and nothing moved.
    exit_code, summary, stderr = job("run", "--period", NIGHTS[1], "--only", "first/demo")
    assert exit_code == 0, stderr[-3000:]
    (again,) = summary["combinations"]
    assert again["run_id"] != one["run_id"]
    compared = again["steps"]["compare"]
    assert compared["against"] == one["run_id"]
    by_measure = {check["measure"]: check["rows"] for check in compared["checks"]}
    assert all(row["value"] < 0.01 for row in by_measure["usage_drift"])
    assert all(row["value"] > 0.98 for row in by_measure["router_saturation"])

    # Other weights under the same name, with the same tokenizer.
    write_demo_model(tmp_path / "changed", architecture="olmoe", seed=1)
    shutil.copytree(tmp_path / "changed", tmp_path / "one", dirs_exist_ok=True)
    exit_code, summary, stderr = job("run", "--period", NIGHTS[2], "--only", "1")
    assert exit_code == 1, stderr[-3000:]
    (moved,) = summary["combinations"]
    assert moved["steps"]["compare"]["against"] == again["run_id"]
    assert "usage_drift.total_variation" in stderr
    assert "limits are not kept" in (tmp_path / "first.html").read_text()
