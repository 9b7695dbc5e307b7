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
    shutil.copytree(
        repository / "pipelines",
        tmp_path / "pipelines",
        ignore=shutil.ignore_patterns("demo-model", "lake", "*.json", "*.html"),
    )
    (tmp_path / "pipelines" / "demo-model").symlink_to(planted_model("olmoe"))
    (tmp_path / ".venv").symlink_to(Path(sys.executable).parent.parent)
    environment = {"MOE_TRACER": str(tmp_path), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}

    def at_night():
        return subprocess.run(
            ["/bin/sh", "-c", command], env=environment, cwd="/", capture_output=True, check=False
        )

    done = at_night()

    assert done.returncode == 0, (tmp_path / "job.err").read_text()[-3000:]
    summary = json.loads((tmp_path / "job.json").read_text())
    (one,) = summary["combinations"]
    assert {name: step["status"] for name, step in one["steps"].items()} == dict.fromkeys(
        ("capture", "verify", "audit", "report"), "done"
    )
    assert (tmp_path / "pipelines" / "report.html").stat().st_size > 10_000

    (tmp_path / "pipelines" / "demo.yaml").write_text("model: demo-model\ndataset: nowhere.csv\n")
    failed = at_night()
    assert b"exit code 2" in failed.stderr
