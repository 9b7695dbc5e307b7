"""Writes schemas/job.schema.json from the classes of a job file (`make docs`)."""

import json
from pathlib import Path

from tracer.workflow.job_file import job_schema

FILE = Path(__file__).parents[1] / "schemas" / "job.schema.json"


def schema_text() -> str:
    """The file's text."""
    return json.dumps(job_schema(), indent=2) + "\n"


if __name__ == "__main__":
    FILE.write_text(schema_text(), encoding="utf-8")
