"""Examples for schedulers, each by the scheduler's own checker or by its own command."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.jobs.conftest import JobFolder
from tracer.cli import cli
from tracer.workflow.job_load import load_job


@pytest.fixture
def checkout(repository, tmp_path):
    """A folder with `pipelines`, and the program where `make setup` leaves it."""
    shutil.copytree(
        repository / "pipelines",
        tmp_path / "pipelines",
        ignore=shutil.ignore_patterns("demo-model", "lake", "nightly", "*.json", "*.html"),
    )
    (tmp_path / ".venv").symlink_to(Path(sys.executable).parent.parent)
    return tmp_path


def units(folder, target):
    """The units with the paths of the checkout set, as their comment says."""
    target.mkdir()
    for path in sorted((folder / "pipelines").glob("moe-tracer@.*")):
        text = path.read_text()
        (target / path.name).write_text(text.replace("/opt/moe-tracer", str(folder)))
    return target


@pytest.mark.systemd
def test_systemd_takes_the_units(checkout):
    target = units(checkout, checkout / "units")
    files = [target / f"moe-tracer@.{kind}" for kind in ("timer", "service")]

    def verified():
        words = ["systemd-analyze", "verify", "--man=no", *map(str, files)]
        return subprocess.run(words, capture_output=True, text=True, check=False)

    done = verified()
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

    text = files[1].read_text()
    files[1].write_text(text.replace("Restart=on-failure", "Restart=at-times"))
    assert "Failed to parse" in verified().stderr  # it does look at them


def test_the_service_runs_a_real_command_of_the_example(checkout):
    text = (checkout / "pipelines" / "moe-tracer@.service").read_text().replace("%i", "nightly")
    (line,) = [line for line in text.splitlines() if line.startswith("ExecStart=")]
    program, *words = line.removeprefix("ExecStart=").split()
    assert program.endswith("/.venv/bin/tracer")
    assert words[:2] == ["job", "run"]
    job = load_job(checkout / words[2])
    assert (job.name, job.every) == ("nightly", "day")


ARRAY = """
models: [{model: model, name: a}, {model: model, name: b}]
dataset: prompts.jsonl
every: day
audit: {output: "{model}.json", draws: 0}
"""


def test_slurm_tasks_take_one_combination_each(jobs, checkout, repository):
    """As Slurm runs the script: bash, the folder of submission, and the task's number."""
    script = checkout / "pipelines" / "slurm-array.sh"
    subprocess.run(["bash", "-n", script], check=True)
    options = [line for line in script.read_text().splitlines() if line.startswith("#SBATCH ")]
    assert {"--array", "--time", "--requeue", "--gpus-per-task"} <= {
        line.split()[1].split("=")[0] for line in options
    }
    jobs = JobFolder(checkout, checkout / "array.yaml")
    jobs.write(ARRAY)
    ids = [jobs.record("2026-03-01", only=(number,)) for number in "12"]

    def task(number, **more):
        environment = {"PATH": "/usr/bin:/bin", "SLURM_SUBMIT_DIR": str(checkout), **more}
        environment |= {"JOB": "array.yaml", "HOME": str(checkout), "PYTHONPATH": str(repository)}
        if number:
            environment["SLURM_ARRAY_TASK_ID"] = number
        return subprocess.run(
            ["bash", script], env=environment, capture_output=True, text=True, check=False
        )

    for number, run_id in enumerate(ids, start=1):
        done = task(str(number), PERIOD="2026-03-01")
        assert done.returncode == 0, done.stderr
        (one,) = json.loads((checkout / f"job-{number}.json").read_text())["combinations"]
        assert (one["number"], one["run_id"]) == (number, run_id)
        assert (checkout / f"{'ab'[number - 1]}.json").exists()
    assert task("3", PERIOD="2026-03-01").returncode == 2
    missing = task("")
    assert missing.returncode != 0
    assert "submit with sbatch --array" in missing.stderr


def without_empty(value):
    """A manifest as kubectl writes it, without what it adds."""
    if isinstance(value, dict):
        found = {key: without_empty(part) for key, part in value.items()}
        return {key: part for key, part in found.items() if part not in (None, {}, [])}
    return [without_empty(part) for part in value] if isinstance(value, list) else value


def test_the_kubernetes_manifest_is_a_cronjob_that_runs_a_real_command(repository):
    """Where kubectl is installed, its own types must know every field: it drops others."""
    path = repository / "pipelines" / "kubernetes.yaml"
    manifest = yaml.safe_load(path.read_text())
    assert (manifest["apiVersion"], manifest["kind"]) == ("batch/v1", "CronJob")
    spec = manifest["spec"]
    assert len(spec["schedule"].split()) == 5
    assert spec["concurrencyPolicy"] in {"Allow", "Forbid", "Replace"}
    job = spec["jobTemplate"]["spec"]
    pod = job["template"]["spec"]
    assert pod["restartPolicy"] == "Never"  # podFailurePolicy asks for it
    (container,) = pod["containers"]
    (rule,) = job["podFailurePolicy"]["rules"]
    assert rule["onExitCodes"]["containerName"] == container["name"]
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]}
    group, name, file = container["args"]
    assert name in cli.get_command(None, group).commands
    assert (repository / "pipelines" / file).exists()
    if (kubectl := shutil.which("kubectl")) is None:
        return
    words = [kubectl, "set", "env", "--local", "-f", path, "A=b", "-o", "json"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    typed = json.loads(done.stdout)
    (typed_container,) = typed["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    assert typed_container.pop("env") == [{"name": "A", "value": "b"}]
    typed.pop("status")
    gpus = container["resources"]["limits"]
    gpus["nvidia.com/gpu"] = str(gpus["nvidia.com/gpu"])  # as kubectl writes quantities
    assert without_empty(typed) == without_empty(manifest)
