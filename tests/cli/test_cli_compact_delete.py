"""`tracer compact`, `delete` and `upgrade` as a user meets them; what they do: tests/store."""

import json
from pathlib import Path

import pytest
from deltalake import DeltaTable

from tracer.schema import arrow_schema
from tracer.store.lake import Lake


@pytest.fixture
def lake(tracer, interchange, tmp_path):
    """Two runs, `one` and `two`, of two requests each."""
    for name in ("one", "two"):
        told = tracer("import", *interchange(name), "--run-id", name, "--lake", tmp_path / "lake")
        assert told.exit_code == 0, told
    return Lake.open(tmp_path / "lake")


def test_a_run_is_deleted_and_its_files_when_asked(tracer, lake):
    told = tracer("delete", "--run", "one", "--yes", "--lake", lake.location)
    assert told.exit_code == 0
    assert told.stdout.startswith("run one: deleted, 0.0 MB; 0 files")
    assert [run["run_id"] for run in lake.runs()] == ["two"]
    told = tracer(
        "delete", "--run", "two", "--yes", "--keep-hours", "0", "--lake", lake.location,
        "--format", "json",
    )  # fmt: skip
    found = json.loads(told.stdout)
    assert found["run_id"] == "two"
    assert found["files_removed"] == 10  # of both runs, five tables each
    assert found["bytes_freed"] > found["bytes_deleted"] > 0
    assert not list(Path(lake.location).rglob("*-i0.parquet"))


def test_nothing_is_deleted_unless_somebody_says_so(tracer, lake):
    assert tracer("delete", "--run", "one", "--lake", lake.location).failed(2, "pass --yes")
    assert tracer("delete", "--yes", "--lake", lake.location).failed(2, "--run")
    assert tracer("delete", "--run", "three", "--yes", "--lake", lake.location).failed(
        2, "no run 'three'"
    )
    assert tracer("delete", "--run", "../one", "--yes", "--lake", lake.location).failed(
        2, "cannot be used"
    )
    with lake.writing("one"):
        assert tracer("delete", "--run", "one", "--yes", "--lake", lake.location).failed(
            2, "another process"
        )
    assert len(lake.runs()) == 2
    assert lake.num_rows("routing", "one") == 12


def test_compacting_says_what_became_of_the_files(tracer, lake):
    told = tracer("compact", "--lake", lake.location, "--format", "json")
    assert told.exit_code == 0
    assert json.loads(told.stdout) == {
        "runs": ["one", "two"],
        "files_before": 10,
        "files_after": 10,
        "files_removed": 0,
        "bytes_freed": 0,
    }
    told = tracer("compact", "--run", "one", "--lake", lake.location)
    assert told.stdout == "5 files of 1 run became 5; 0 old ones of 0.0 MB removed from disk\n"
    assert tracer("compact", "--run", "three", "--lake", lake.location).failed(2, "no run 'three'")
    assert tracer("compact", "--keep-hours", "-1", "--lake", lake.location).failed(
        2, "--keep-hours"
    )


def test_an_older_lake_gets_what_came_since(tracer, lake):
    """A table without a column and settings that this version gives it."""
    from deltalake import Schema

    folder = Path(lake.location) / "requests"
    fields = [field for field in arrow_schema("requests") if field.name != "output_text"]
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    DeltaTable.create(
        str(folder),
        Schema.from_arrow(
            arrow_schema("requests").empty_table().select([field.name for field in fields]).schema
        ),
    )
    told = tracer("upgrade", "--lake", lake.location)
    assert told.exit_code == 0
    assert told.stdout.splitlines() == [
        "added requests: column output_text",
        "added requests: setting delta.checkpointInterval",
        "added requests: setting moe_tracer.schema_version",
    ]
    assert tracer("upgrade", "--lake", lake.location).stdout == f"{lake.location} is up to date\n"
    assert json.loads(tracer("upgrade", "--lake", lake.location, "--format", "json").stdout) == {
        "added": []
    }


def test_a_lake_of_another_version_is_left_alone(tracer, lake, tmp_path):
    DeltaTable(str(Path(lake.location) / "runs")).alter.set_table_properties(
        {"moe_tracer.schema_version": "9"}, raise_if_not_exists=False
    )
    assert tracer("runs", "--lake", lake.location).failed(2, "version 9", "tracer upgrade")
    assert tracer("upgrade", "--lake", lake.location).failed(2, "version 9", "newer")
    assert tracer("upgrade", "--lake", tmp_path / "none").failed(2, "not a trace lake")
