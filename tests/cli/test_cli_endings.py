"""How commands end: a reader that goes away, an interrupt; what a capture and a job are told."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tracer.cli import capture, cli


@pytest.fixture
def lake(tracer, interchange):
    assert tracer("import", *interchange(), "--run-id", "one").exit_code == 0


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["runs"],
        ["runs", "--format", "json"],
        ["audit"],
        ["audit", "--format", "json"],
        ["report"],
        ["demo-model", "model"],
        ["sql", "--print-views"],
        *(
            ["sql", f"select range, repeat('x', {width}) from range(999)", "--format", form]
            for form in ("table", "csv", "json")
            for width in (1, 200)
        ),
        ["sql", "select 1"],
    ],
)
def test_a_reader_that_went_away_is_no_error(lake, words):
    """Whether the output is more than a pipe holds or waits in a buffer to the end."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "tracer", *words],
            stdout=writing,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


def interrupted(*_, **__):
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("words", "resumes"),
    [
        (["capture", "--model", "m", "--dataset", "d"], True),
        (["import", "--routing", "in/routing.parquet"], True),
        (["job", "run", "job.yaml"], True),
        (["runs"], False),
        (["audit"], False),
        (["sql", "select 1"], False),
    ],
)
def test_only_what_resumes_says_so_on_an_interrupt(tracer, monkeypatch, words, resumes):
    monkeypatch.setattr(cli, "invoke", interrupted)
    told = tracer(*words)
    assert told.failed(130, "Error: interrupted")
    assert ("the same command resumes" in told.stderr) == resumes


@pytest.mark.parametrize(
    ("found", "told"),
    [
        ({"num_domains": 0, "unmapped": {}}, "no domains: name a column with --domain-field\n"),
        ({"num_domains": 0, "unmapped": {"law": 3}}, ""),
        ({"num_domains": 2, "unmapped": {}}, ""),
    ],
)
@pytest.mark.parametrize("form", ["table", "json"])
def test_a_capture_without_domains_is_told(tracer, monkeypatch, found, told, form):
    counts = ("num_requests", "num_prompt_tokens", "num_generated_tokens", "num_rows")
    others = ("num_skipped", "num_uncaptured", "num_aborted")
    rest = (*others, "bytes_written", "seconds", "tokens_per_s")
    summary = (
        {"run_id": "r", "lake": "lake", "share": None} | dict.fromkeys((*counts, *rest), 1) | found
    )
    monkeypatch.setattr(capture, "_capture", lambda **_: summary)
    done = tracer("capture", "--model", "m", "--dataset", "d", "--format", form)
    assert (done.exit_code, done.stderr) == (0, told)


@pytest.mark.parametrize(
    ("words", "environment", "expected"),
    [
        ([], None, None),
        ([], "from-env", "from-env"),
        (["--lake", "from-flag"], "from-env", "from-flag"),
    ],
)
def test_the_lake_of_a_job_is_file_then_environment_then_flag(
    tracer, monkeypatch, words, environment, expected
):
    from tracer.workflow import job

    asked = []

    def run_job(_job, *, lake_path, **_others):
        asked.append(lake_path)
        return {"combinations": [], "exit_code": 0}

    monkeypatch.setattr(job, "run_job", run_job)
    if environment:
        monkeypatch.setenv("TRACER_LAKE", environment)
    Path("job.yaml").write_text("{model: m, dataset: d}")
    assert tracer("job", "run", "job.yaml", *words).exit_code == 0
    assert [path and str(path) for path in asked] == [expected]
