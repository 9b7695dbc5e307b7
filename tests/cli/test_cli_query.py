"""`tracer query`: the list, a measure's help made of its header, results, notes, wrong input."""

import dataclasses
import json
import re
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tracer.analysis.measures.catalogue import measure_named, measure_names
from tracer.analysis.measures.engines import with_literals
from tracer.analysis.measures.inputs import Asked, make_inputs
from tracer.analysis.sql import connect
from tracer.api import open_lake
from tracer.cli.query import command
from tracer.errors import InputError
from tracer.store.lake import Lake

# In `interchange`: three tokens of "a" choose 0 and 1, three of "b" 0 and 2, in layers 1 and 3.
LOADS = [0.5, 0.25, 0.25, 0.0] * 2


@pytest.fixture
def lake(tracer, interchange):
    assert tracer("import", *interchange(), "--run-id", "one").exit_code == 0
    return Path("lake")


def query(tracer, *words):
    """Rows of a query without draws."""
    told = tracer("query", *words, "--draws", "0", "--format", "json")
    assert told.exit_code == 0, told
    return json.loads(told.stdout)


def test_without_a_name_all_measures_are_listed_by_their_questions(tracer):
    told = tracer("query", "--format", "json")
    assert (told.exit_code, told.stderr) == (0, "")
    assert json.loads(told.stdout) == [
        {"name": name, "question": measure_named(name).asks} for name in measure_names()
    ]
    table = tracer("query")
    lines = table.stdout.splitlines()
    assert len(lines) >= len(measure_names()) + 1
    assert "Which experts take most of the load, and which none?" in table.stdout
    assert "tracer query NAME --help" in table.stderr


@pytest.mark.parametrize("name", measure_names())
def test_the_help_of_a_measure_is_its_header(tracer, name):
    measure = measure_named(name)
    told = tracer("query", name, "--help")
    assert (told.exit_code, told.stderr) == (0, "")
    text = " ".join(told.stdout.split())
    for words in (measure.asks, measure.source, measure.meaning[1:], measure.no_null):
        assert " ".join(words.split()) in text
    lines = [line.split(maxsplit=1) for line in told.stdout.splitlines()]
    for column in measure.columns:
        assert [column.name, column.unit][: 1 + bool(column.unit)] in lines
    for bind in measure.binds:
        assert f"--{bind.name.replace('_', '-')} " in told.stdout
    assert ("--other-run" in told.stdout) == measure.compares
    if measure.null:
        assert f"Chance ({measure.null}): " in text


def test_points_alone(tracer, lake):
    rows = query(tracer, "expert_load")
    assert [row["load"] for row in rows] == LOADS
    assert list(rows[0]) == [column.name for column in measure_named("expert_load").columns]
    (prompt, *_) = query(tracer, "expert_load", "--tokens", "last-prompt")
    assert prompt["num_choices"] == 2


def test_draws_add_columns_and_the_seed_fixes_them(tracer, lake):
    words = ["query", "expert_load", "--draws", "9", "--format", "csv"]
    told = tracer(*words)
    assert told.exit_code == 0
    assert "intervals are from 9 draws of requests (seed 0)" in told.stderr
    header = told.stdout.splitlines()[0].split(",")
    added = ["low", "high", "chance", "chance_low", "chance_high", "p", "p_adjusted"]
    place = header.index("load")
    assert header[place + 1 : place + 8] == [f"load_{name}" for name in added]
    assert tracer(*words).stdout == told.stdout
    assert tracer(*words, "--seed", "1").stdout != told.stdout
    assert tracer(*words, "--level", "0.2").stdout != told.stdout


def test_options_of_a_measure_reach_it(tracer, lake):
    """Of lists (1, 0) and (2, 0) the first places hold 1 and 2 only."""
    columns = "presence", "candidate"
    found = [[row[name] for row in query(tracer, "committee")[:4]] for name in columns]
    assert found == [[1, 0.5, 0.5, 0], [True, False, False, False]]
    words = ["committee", "--min-presence", "0.5", "--rank-cutoff", "1"]
    found = [[row[name] for row in query(tracer, *words)[:4]] for name in columns]
    assert found == [[0, 0.5, 0.5, 0], [False, True, True, False]]
    tracer("query", *words[:-1], "0.5").failed(2, "--rank-cutoff")
    tracer("query", *words[:2], "some").failed(2, "--min-presence")


def test_no_option_of_a_measure_is_one_of_all_measures():
    """A bind --seed, say, would leave the seed of draws without a name."""
    for name in measure_names():
        flags = [flag for option in command.get_command(None, name).params for flag in option.opts]
        assert len(flags) == len(set(flags)), name


def test_the_output_is_of_the_format_its_suffix_says(tracer, lake):
    words = ["query", "expert_load", "--draws", "0", "--output"]
    for name in ("a.parquet", "a.json", "a.csv", "a.txt"):
        told = tracer(*words, name)
        assert (told.exit_code, told.stdout, told.stderr) == (0, "", "")
    assert pl.read_parquet("a.parquet")["load"].to_list() == LOADS
    assert [row["load"] for row in json.loads(Path("a.json").read_text())] == LOADS
    assert Path("a.csv").read_text() == Path("a.txt").read_text()
    assert pl.read_csv("a.csv")["load"].to_list() == LOADS
    assert tracer(*words, "b.parquet", "--format", "csv").exit_code == 0
    assert Path("b.parquet").read_text() == Path("a.csv").read_text()


def test_a_choice_of_requests_is_told(tracer, lake):
    words = ["query", "expert_load", "--draws", "0", "--format", "json", "--requests"]
    told = tracer(*words, "1")
    assert told.stderr == "Note: 1 of 2 requests of run 'one' were chosen at random.\n"
    assert {row["load"] for row in json.loads(told.stdout)} == {0.5, 0.0}
    for every in ("2", "3", "all"):
        told = tracer(*words, every)
        assert told.stderr == ""
        assert [row["load"] for row in json.loads(told.stdout)] == LOADS


def test_prompt_tokens_from_the_prefix_cache_are_told(tracer, lake):
    (path,) = (lake / "requests" / "one").glob("*.parquet")
    table = pq.read_table(path)
    place = table.column_names.index("cached_prefix_tokens")
    field = table.schema.field(place)
    pq.write_table(table.set_column(place, field, pa.array([1, 0], field.type)), path)
    note = "1 of 4 prompt tokens of run 'one' have no rows"
    for tokens, there in {"all": 1, "prompt": 1, "generated": 0, "last-prompt": 0}.items():
        told = tracer("query", "expert_load", "--draws", "0", "--tokens", tokens)
        assert told.exit_code == 0
        assert told.stderr.count(note) == there


def test_an_import_of_ids_alone_is_told(tracer, interchange):
    """Ids of two requests, one token of two layers each: every expert once of two choices."""
    words = interchange()
    np.savez("ids.npz", a=np.array([[[0, 1], [2, 3]]] * 2), b=np.array([[[2, 3], [0, 1]]] * 2))
    words[words.index("--routing") + 1] = "ids.npz"
    told = tracer("import", "--form", "vllm", *words, "--run-id", "one")
    assert told.exit_code == 0, told
    told = tracer("query", "expert_load", "--draws", "0", "--format", "json")
    assert "Note: run 'one' has no gate weights" in told.stderr
    assert {row["load"] for row in json.loads(told.stdout)} == {0.25}
    tracer("query", "committee").failed(2, "'committee' is made of gate weights")


def test_what_the_run_did_not_record_names_the_option(tracer, lake, monkeypatch):
    read = dataclasses.replace(measure_named("expert_load"), reads=("cosine_entries",))
    monkeypatch.setattr("tracer.analysis.measures.run.measure_named", lambda name: read)
    tracer("query", "expert_load").failed(2, "run 'one' has no routers", "--router-weights")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["no_such"], ["no measure 'no_such'", "Hint: `tracer query` lists them"]),
        (["../expert_load"], ["no measure '../expert_load'"]),
        (["expert_load", "--run", "two"], ["no run 'two'", "it has: one"]),
        (["expert_load", "--lake", "nowhere"], ["nowhere is not a trace lake"]),
        (["expert_load", "--top-p", "1"], ["No such option", "tracer query expert_load --help"]),
        (["expert_load", "--other-run", "one"], ["No such option"]),
        (["expert_load", "--format", "parquet"], ["--format parquet needs --output"]),
        (["expert_load", "--output", "no/x.csv"], ["there is no folder 'no'"]),
        (["expert_load", "--tokens", "some"], ["--tokens"]),
        (["expert_load", "--draws", "-1"], ["--draws"]),
        (["expert_load", "--level", "1"], ["--level"]),
        (["expert_load", "--requests", "0"], ["--requests", "neither a number"]),
        (["expert_load", "--requests", "some"], ["--requests", "neither a number"]),
        (["expert_load", "extra"], ["extra"]),
        (["expert_load", "--domains", "no.toml"], ["no.toml"]),
        (["--format", "json", "expert_load"], ["behind the name of the measure"]),
        (["--format", "csv"], ["--format"]),
    ],
)
def test_wrong_input_is_one_line(tracer, lake, words, expected):
    tracer("query", *words).failed(2, *expected)


def test_labels_of_domains_that_do_not_occur_are_refused(tracer, lake):
    Path("map.toml").write_text('all = ["nothing"]')
    words = ["query", "expert_load", "--domains", "map.toml", "--draws", "0"]
    tracer(*words).failed(2, "none of the 1 labels given for domains occurs in run 'one'")
    Path("map.toml").write_text('all = ["law", "art"]')
    assert tracer(*words).exit_code == 0


def test_a_damaged_file_is_named(tracer, lake):
    (path,) = (lake / "usage" / "one").glob("*.parquet")
    path.write_bytes(b"not Parquet at all")
    tracer("query", "expert_load").failed(3, f"{path.absolute()}")


def test_in_python(lake):
    found = open_lake(lake).query("expert_load", draws=9, requests=1)
    assert found.frame.height == len(LOADS)
    assert {"load", "load_low", "load_chance"} <= set(found.frame.columns)
    chosen, drawn, without = found.notes
    assert chosen == "1 of 2 requests of run 'one' were chosen at random."
    assert drawn.startswith("intervals are from 9 draws of requests (seed 0)")
    assert without.startswith(
        "8 of 8 rows have no interval"
    )  # one request cannot say how it varies
    with pytest.raises(InputError, match="has no option 'top_p'"):
        open_lake(lake).query("expert_load", top_p=0.5)


def test_the_python_of_the_page_runs(lake):
    """On a lake with layers 1 and 3; its own load is that of the measure."""
    page = Path(__file__).parents[2] / "docs" / "queries.md"
    blocks = re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    names = {}
    for block in blocks:
        exec(block, names)  # noqa: S102
    expected = open_lake(lake).query("expert_load", draws=0).frame.filter(pl.col("load") > 0)
    columns = ["layer_id", "expert_id", "load"]
    assert names["load"].select(columns).rows() == expected.select(columns).rows()
    assert names["first"].rows() == [("art", 0.5), ("law", 0.5)]
    assert names["found"].frame["load"].to_list() == LOADS


@pytest.mark.parametrize("name", ["expert_load", "committee_coverage"])
def test_polars_prints_what_duckdb_prints(tracer, lake, name):
    words = ["query", name, "--format", "json"]
    told = tracer(*words, "--engine", "polars")
    assert told.stderr == "Note: polars takes the measure once, so there are no chance levels.\n"
    assert json.loads(told.stdout) == query(tracer, name)
    assert tracer(*words, "--engine", "polars", "--draws", "0").stderr == ""


def test_spark_that_is_not_installed_is_told(tracer, lake, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyspark.errors", None)
    words = ["query", "expert_load", "--engine"]
    told = tracer(*words, "spark", "--draws", "0")
    told.failed(2, "the library 'pyspark' is not installed", "moe-tracer[spark]")
    tracer(*words, "polars", "--master", "local").failed(2, "--master belongs to --engine spark")
    tracer(*words, "sqlite").failed(2, "--engine")


def test_a_table_shows_interval_chance_and_p_in_few_columns(lake, tracer):
    """Two values side by side, nine below one another; CSV has every column."""
    told = tracer("query", "expert_load", "--draws", "3", "--lake", lake).stdout.splitlines()
    assert told[0].split()[:4] == ["layer_id", "expert_id", "num_choices", "load"]
    assert told[0].count("by chance") == told[0].count("interval") == 2
    assert "_low" not in told[0]
    told = tracer("query", "load_balance", "--draws", "3", "--lake", lake).stdout.splitlines()
    assert told[0].split() == ["layer_id", "measure", "value", "interval", "by", "chance", "p"]
    assert [line.split()[1] for line in told[1:3]] == ["min_load", "max_load"]
    csv = tracer("query", "load_balance", "--draws", "3", "--format", "csv", "--lake", lake).stdout
    assert "load_cv_chance_low" in csv.splitlines()[0]


def test_the_sql_can_be_pasted(lake, tracer):
    """It needs no lake; where its relations are, it gives the rows that the command gives."""
    words = ("committee", "--min-presence", "0.5", "--rank-cutoff", "1")
    told = tracer("query", *words, "--sql", "--lake", "nowhere")
    assert (told.exit_code, told.stderr) == (0, "")
    opened = Lake.open(lake)
    con = connect(opened)
    make_inputs(con, measure_named("committee").reads, Asked(opened.run("one"), "all", {}))
    rows = con.sql(told.stdout).pl().to_dicts()
    assert rows == [
        {key: row[key] for key in rows[0]} for row in query(tracer, *words, "--run", "one")
    ]
    assert tracer("query", "eci_drift", "--sql").stdout == with_literals(
        measure_named("eci_drift").sql, {}
    )
