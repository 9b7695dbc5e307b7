"""The crontab example, run as cron would: its own command, sh, and almost no environment."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.engine


def test_the_crontab_line_runs_the_job(planted_model, repository, tmp_path):
    (line,) = [
        line
        for line in (repository / "pipelines" / "crontab").read_text().splitlines()
        if line[:1].isdigit()
    ]
    command = line.split(maxsplit=5)[5]
    assert "%" not in command  # cron would cut the command there
    (tmp_path / "pipelines").mkdir()
    shutil.copy(repository / "pipelines" / "nightly.yaml", tmp_path / "pipelines")
    (tmp_path / "pipelines" / "demo-model").symlink_to(planted_model("olmoe"))
    (tmp_path / ".venv").symlink_to(Path(sys.executable).parent.parent)
    environment = {
        "MOE_TRACER": str(tmp_path),
        "PATH": "/usr/bin:/bin",
        "HOME": str(tmp_path),
        "PYTHONPATH": str(repository),
    }

    def at_night():
        return subprocess.run(
            ["/bin/sh", "-c", command], env=environment, cwd="/", capture_output=True, check=False
        )

    done = at_night()

    assert done.returncode == 0, (tmp_path / "job.err").read_text()[-3000:]
    (one,) = json.loads((tmp_path / "job.json").read_text())["combinations"]
    assert one["status"] == "passed", one
    steps = {name: step.get("status") for name, step in one["steps"].items()}
    assert steps.pop("retention") is None
    assert steps == dict.fromkeys(
        ("capture", "verify", "compact", "audit 1", "audit 2", "compare", "report"), "done"
    )
    (page,) = (tmp_path / "pipelines" / "nightly").glob("demo-model-demo-20??-??-??.html")
    assert page.stat().st_size > 10_000

    (tmp_path / "pipelines" / "nightly.yaml").write_text("model: demo-model\ndataset: no.csv\n")
    failed = at_night()
    assert b"exit code 2" in failed.stderr
    assert "no.csv" in (tmp_path / "job.err").read_text()
