"""`tracer sql`: formats, files, types no frame can hold; lake files that are damaged."""

import json
from pathlib import Path

import polars as pl
import pytest


@pytest.fixture
def lake(tracer, interchange):
    assert tracer("import", *interchange(), "--run-id", "one").exit_code == 0
    return Path("lake")


def test_a_table_shows_the_first_thousand_rows(tracer, lake):
    query = "select range as n from range({})"
    told = tracer("sql", query.format(1234))
    lines = told.stdout.split()
    assert (lines[0], lines[-1], len(lines)) == ("n", "999", 1001)
    assert told.stderr == "showing 1,000 of 1,234 rows; --format csv or json prints all\n"
    assert tracer("sql", query.format(1000)).stderr == ""
    csv = tracer("sql", query.format(1234), "--format", "csv")
    assert (len(csv.stdout.splitlines()), csv.stderr) == (1235, "")


def test_the_suffix_of_the_output_says_its_format(tracer, lake):
    query = "select 1 as x, 'a' as y"
    for name in ("a.parquet", "a.json", "a.csv", "a.txt", "b.PARQUET"):
        assert tracer("sql", query, "--output", name).exit_code == 0
    assert pl.read_parquet("a.parquet").rows() == pl.read_parquet("b.PARQUET").rows() == [(1, "a")]
    assert json.loads(Path("a.json").read_text()) == [{"x": 1, "y": "a"}]
    assert Path("a.csv").read_text() == Path("a.txt").read_text() == "x,y\n1,a\n"
    assert tracer("sql", query, "--output", "c.parquet", "--format", "csv").exit_code == 0
    assert Path("c.parquet").read_text() == "x,y\n1,a\n"


def test_views_are_not_written_to_a_file(tracer, lake):
    tracer("sql", "--print-views", "--output", "v.sql").failed(2, "--print-views", "--output")
    assert not Path("v.sql").exists()


@pytest.mark.parametrize(
    "value",
    ["interval 1 day", "[interval 1 day]", "{'a': [interval 1 day]}", "union_value(a := 1)"],
)
def test_a_type_no_frame_can_hold_is_told(tracer, lake, value):
    tracer("sql", f"select {value} as v").failed(2, "column 'v' is of type", "::varchar")
    assert tracer("sql", f"select ({value})::varchar as v").exit_code == 0


def test_json_is_strict(tracer, lake):
    query = "select 'nan'::double a, [1.5, '-inf'::double] b, {'c': 'inf'::float} d, 2.5::float e"
    told = tracer("sql", query, "--format", "json").stdout
    found = json.loads(told, parse_constant=pytest.fail)
    assert found == [{"a": None, "b": [1.5, None], "d": {"c": None}, "e": 2.5}]


def test_timestamps_in_json_are_iso_8601(tracer, lake):
    query = "select timestamptz '2026-01-02 03:04:05+00' a, date '2026-01-02' b"
    (row,) = json.loads(tracer("sql", query, "--format", "json").stdout)
    assert row == {"a": "2026-01-02T03:04:05+00:00", "b": "2026-01-02"}
    (run,) = json.loads(tracer("runs", "--format", "json").stdout)
    assert run["started_at"][10] == "T"


def removed(path):
    path.unlink()


def cut_short(path):
    path.write_bytes(path.read_bytes()[:-20])


def emptied(path):
    path.write_bytes(b"")


def overwritten(path):
    path.write_bytes(b"not Parquet at all")


def pages_overwritten(path):
    """All before the footer, whose length stands in the last eight bytes."""
    raw = path.read_bytes()
    end = len(raw) - 8 - int.from_bytes(raw[-8:-4], "little")
    path.write_bytes(raw[:4] + b"\xa5" * (end - 4) + raw[end:])


def footer_overwritten(path):
    raw = path.read_bytes()
    start = len(raw) - 8 - int.from_bytes(raw[-8:-4], "little")
    path.write_bytes(raw[:start] + b"\xa5" * (len(raw) - 8 - start) + raw[-8:])


@pytest.mark.parametrize(
    "damage", [removed, cut_short, emptied, overwritten, pages_overwritten, footer_overwritten]
)
@pytest.mark.parametrize("run", ["one", "two"])
def test_a_damaged_lake_file_is_named(tracer, interchange, lake, damage, run):
    """In whichever run: views take their columns from the first file only."""
    tracer("import", *interchange("more", run={"note": "y"}), "--run-id", "two")
    for table, words in {
        "routing": ["sql", "select sum(gate_weight) from choices"],
        "usage_by_domain": ["audit", "--run", run],
        "requests": ["report", "--run", run],
    }.items():
        (path,) = (lake / table / run).glob("*.parquet")
        whole = path.read_bytes()
        damage(path)
        tracer(*words).failed(3, f"{path.absolute()}", "restore the file from a copy")
        path.write_bytes(whole)
        assert tracer(*words).exit_code == 0


@pytest.mark.parametrize(
    "query",
    [
        "from read_parquet('/etc/passwd')",
        "from read_parquet('{lake}/routing/nothing.parquet')",
        "from read_json('{file}')",
        "select error('x')",
    ],
)
def test_a_query_that_reads_what_it_cannot_is_the_users(tracer, lake, query):
    (file,) = (lake / "routing" / "one").glob("*.parquet")
    tracer("sql", query.format(lake=lake.absolute(), file=file.absolute())).failed(2)
