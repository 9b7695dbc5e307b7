"""`tracer bench query`: the lake it asks, the answers and the figures; no time is tested."""

import json
import math
import sys
import time
from dataclasses import replace
from statistics import median
from types import SimpleNamespace

import duckdb
import numpy as np
import polars as pl
import pytest

from tracer.analysis.request_usage import RequestUsage
from tracer.bench.loads import Spent
from tracer.bench.made_lake import fill_lake
from tracer.bench.made_routing import MADE_MODELS, make_routing
from tracer.bench.query import (
    QueryCost,
    nearest_in_memory,
    pairs_in_memory,
    peak_bytes,
    read_choices,
    take_turns,
    turns_in_memory,
)
from tracer.errors import DamagedDataError
from tracer.workflow import bench_query
from tracer.workflow.bench_query import QueryReport


@pytest.mark.parametrize(
    ("words", "told"), [(["--choices", "0"], "--choices"), (["--rounds", "0"], "--rounds")]
)
def test_wrong_usage_is_refused(tracer, words, told):
    assert tracer("bench", "query", *words).failed(2, told)


def test_a_folder_with_something_in_it_is_not_for_a_lake(tracer, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    told = tracer("bench", "query", "--choices", "9", "--keep", tmp_path / "full")
    assert told.failed(2, "is not empty", "name a new folder for --keep.")
    assert tracer("bench", "query", "--keep", tmp_path / "full" / "notes.txt").exit_code == 2


def test_a_run_is_made_asked_and_kept(tracer, monkeypatch):
    """100,000 choices in shards of about 25,000: 196 tokens of 128 choices in each of four."""
    monkeypatch.setattr(bench_query, "SHARD_CHOICES", 25_000)
    told = tracer("bench", "query", "--choices", "100000", "--rounds", "1", "--keep", "big")
    assert told.exit_code == 0
    *lines, last = told.stdout.splitlines()
    assert len(lines) > 4
    figures = json.loads(last)
    assert figures["batches"] == 4
    assert figures["bootstrap_cpu_s"] > 0
    assert figures["choices"] == 4 * 196 * 128
    assert figures["numpy_choices"] == figures["pairs_pandas_choices"] == 196 * 128
    assert figures["pairs_choices"] == 4 * 196 * 128
    assert figures["pairs_pandas_vs_pairs_cpu_ratio"] > 0
    assert figures["pairs_pandas_peak_bytes"] >= 0
    assert figures["alike_choices"] == figures["alike_numpy_choices"] == 4 * 196 * 128
    assert figures["alike_numpy_vs_alike_cpu_ratio"] > 0
    assert figures["pairs_read_choices"] == 4 * 196 * 128
    assert figures["pairs_read_vs_pairs_cpu_ratio"] > 0
    count = "select count(*) from read_parquet('big/routing/*/*.parquet')"
    assert duckdb.sql(count).fetchall() == [(4 * 196 * 16,)]
    assert tracer("verify", "--lake", "big").exit_code == 0
    (run,) = json.loads(tracer("runs", "--lake", "big", "--format", "json").stdout)
    assert run["status"] == "complete"
    count = "select count(*) from read_parquet('big/requests/*/*.parquet')"
    assert duckdb.sql(count).fetchall() == [(figures["requests"],)]


def test_numpy_and_pandas_sum_what_the_rows_say():
    made = make_routing(MADE_MODELS["olmoe"], 300)
    turns = turns_in_memory(made)
    counts, sums = turns["numpy"]()
    assert counts.shape == sums.shape == (16, 14, 64)
    assert counts.sum() == made.num_choices
    found = turns["pandas"]()
    layer, domain, expert = (found.index.get_level_values(level) for level in range(3))
    assert np.array_equal(counts[layer, domain, expert], found["size"])
    assert np.allclose(sums[layer, domain, expert], found["sum"])
    assert found["size"].sum() == made.num_choices


def test_numpy_and_pandas_count_the_same_pairs():
    """300 tokens have 28 pairs in each of 16 layers; an expert goes with itself when chosen."""
    made = make_routing(MADE_MODELS["olmoe"], 300)
    turns = pairs_in_memory(made)
    counts = turns["pairs_numpy"]()
    found = turns["pairs_pandas"]()
    assert found.sum() == 16 * 300 * 28
    layer, one, two = (found.index.get_level_values(level) for level in range(3))
    assert (one < two).all()
    assert np.array_equal(counts[layer, one, two], found)
    assert np.array_equal(counts, counts.transpose(0, 2, 1))
    of_one = turns_in_memory(made)["numpy"]()[0].sum(axis=1)
    assert np.array_equal(np.einsum("lee->le", counts), of_one)


def test_without_pandas_there_is_no_turn_of_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    made = make_routing(MADE_MODELS["olmoe"], 50)
    assert set(turns_in_memory(made)) == {"numpy"}
    assert set(pairs_in_memory(made)) == {"pairs_numpy"}


def test_reading_decodes_every_id(tmp_path):
    made = make_routing(MADE_MODELS["olmoe"], 300)
    lake, _ = fill_lake(tmp_path / "lake", made, 2, "r", lambda _: None)
    assert read_choices(lake.files("routing", "r")) == 2 * made.num_choices


def test_peak_memory_is_what_a_turn_holds_while_it_runs():
    def turn():
        held = np.ones(80_000_000, dtype=np.uint8)
        time.sleep(0.1)
        return int(held[0])

    assert 70e6 < peak_bytes(turn) < 400e6
    assert peak_bytes(lambda: None) < 40e6


def test_every_turn_is_taken_once_a_round_and_once_before():
    taken = []
    turns = {name: lambda name=name: taken.append(name) for name in "abc"}
    spent = take_turns(turns, 4, lambda _: None)
    assert {name: len(times) for name, times in spent.items()} == {"a": 4, "b": 4, "c": 4}
    assert {name: taken.count(name) for name in "abc"} == {"a": 5, "b": 5, "c": 5}


def test_answers_that_differ_are_no_figures():
    keys = {"layer_id": [0, 0], "domain": ["a", "a"], "expert_id": [1, 2]}
    sums = pl.DataFrame({**keys, "num_choices": [3, 1], "num_tokens": [4, 4], "eci": [0.5, 0.25]})
    bench_query._same_answer(sums, sums.reverse())
    for change in ({"num_choices": [3, 2]}, {"eci": [0.5, 0.2501]}, {"expert_id": [1, 3]}):
        other = sums.with_columns(**{name: pl.Series(values) for name, values in change.items()})
        with pytest.raises(DamagedDataError, match="do not agree"):
            bench_query._same_answer(sums, other)
    with pytest.raises(DamagedDataError, match="do not agree"):
        bench_query._same_answer(sums.clear(), sums.clear())


def test_shares_of_usage_that_differ_are_no_figures():
    """Two tokens of one request: expert 1 with half, expert 2 with a quarter of a weight each."""
    used = RequestUsage(
        np.array([2.0]), np.array([[0, 2, 2]], dtype=np.float32), np.array([[0, 1.0, 0.5]])
    )
    requests = SimpleNamespace(domain=np.zeros(1, int), domains=("a",), layer=lambda _: used)
    keys = {"layer_id": [5, 5], "domain": ["a", "a"], "expert_id": [1, 2]}
    sums = pl.DataFrame({**keys, "eci": [0.5, 0.25]})
    bench_query._same_shares(sums, requests, [5])
    for eci in ([0.5, 0.2501], [math.nan, 0.25]):
        with pytest.raises(DamagedDataError, match="do not agree"):
            bench_query._same_shares(sums.with_columns(eci=pl.Series(eci)), requests, [5])


def test_pairs_that_differ_are_no_figures():
    """Experts 0 and 1 of layer 0, for three tokens in each of two batches."""
    pairs = {"layer_id": [0], "expert_id": [0], "second_expert_id": [1]}
    counts = np.array([[[4, 3], [3, 5]]])
    bench_query._same_pairs(pl.DataFrame({**pairs, "num_tokens": [6]}), counts, 2)
    with pytest.raises(DamagedDataError, match="does not count the pairs"):
        bench_query._same_pairs(pl.DataFrame({**pairs, "num_tokens": [5]}), counts, 2)


def test_requests_that_are_not_the_most_alike_are_no_figures():
    """a and b are the same; c is as far from either."""
    rows = np.array([[1.0, 0, 0], [1, 0, 0], [0.6, 0.8, 0]])
    places = nearest_in_memory([rows])
    assert [place.tolist() for place in places] == [[1, 0, 0]]
    names = {"layer_id": [4] * 3, "request_id": list("abc")}
    for nearest in ("baa", "bab"):
        found = pl.DataFrame({**names, "nearest_id": list(nearest)})
        bench_query._same_alike(found, places, [rows])
    with pytest.raises(DamagedDataError, match="does not name the most alike"):
        bench_query._same_alike(pl.DataFrame({**names, "nearest_id": list("caa")}), places, [rows])


@pytest.fixture
def report():
    """16 million choices in two shards: rows 2, 4 s; rollup a hundredth, bootstrap a fifth of
    that; numpy one shard; pairs twice what rows take. On the clock twice as long."""
    cpu = {
        "rollup": [0.02, 0.04],
        "bootstrap": [0.4, 0.8],
        "rows": [2.0, 4.0],
        "numpy": [0.5, 1.0],
        "pairs": [4.0, 8.0],
        "pairs_numpy": [3.0, 6.0],
    }
    spent = {mode: [Spent(one, 2 * one) for one in times] for mode, times in cpu.items()}
    choices = dict.fromkeys(cpu, 16_000_000) | dict.fromkeys(["numpy", "pairs_numpy"], 8_000_000)
    sizes = {"routing": 1000, "tokens": 10, "usage": 50, "usage_by_domain": 25}
    peaks = {"pairs": 30_000_000, "pairs_numpy": 20_000_000}
    cost = QueryCost(125_000, 340, 2, choices, Spent(0.2, 0.3), spent, sizes, peaks)
    return QueryReport(2, cost)


def test_figures_are_per_choice_and_null_where_nothing_ran(report):
    figures = report.to_dict()
    assert figures["rows_vs_rollup_cpu_ratio"] == 100
    assert figures["rows_cpu_s"] == median([2, 4])
    assert figures["rows_mchoices_per_s"] == round(16 / 3, 3)
    assert figures["rows_vs_numpy_cpu_ratio"] == 2
    assert figures["bootstrap_wall_s"] == 1.2
    assert figures["usage_of_routing"] == 0.05
    assert figures["usage_by_domain_of_routing"] == 0.025
    assert figures["pairs_numpy_vs_pairs_cpu_ratio"] == 1.5
    assert figures["pairs_numpy_vs_pairs_wall_ratio"] == 1.5
    assert figures["pairs_peak_bytes"] == 30_000_000
    assert {name for name in figures if "pandas" in name and figures[name] is not None} == set()


def test_the_table_has_what_ran_and_says_what_did_not(report):
    columns, rows = report.table()
    assert [len(row) for row in rows] == [len(columns)] * 6
    last = ["0.01000", "0.20000", "", "0.50000", "2.00000", "3.00000"]
    assert [row[-1] for row in rows] == last
    told = "\n".join(report.notes())
    assert "rows cost 100 [100, 100] times" in told
    assert "pandas is not installed" in told
    assert "pairs 30 MB for 16,000,000 choices, pairs_numpy 20 MB for 8,000,000" in told
    assert "straightforward pandas" not in told
    mode = "pairs, straightforward numpy: matrix product, one shard in memory"
    assert f"{mode}: 1.50 [1.50, 1.50] of the query's time per choice, 1.50" in told


def test_the_goal_of_pairs_stands_beside_what_was_measured(report):
    """Pandas takes 20 and 40 s for half the choices: ten times the CPU time of the query for each.

    On the clock the query takes 8 and 16 s, so pandas takes five times as long."""
    cost = report.cost
    times = [Spent(20.0, 20.0), Spent(40.0, 40.0)]
    spent = {**cost.spent, "pairs_pandas": times}
    choices = {**cost.choices, "pairs_pandas": 8_000_000}
    told = QueryReport(2, replace(cost, spent=spent, choices=choices)).notes()
    mode = "pairs, straightforward pandas: merge and group-by, one shard in memory"
    ratios = "5.00 [5.00, 5.00] of the query's time per choice, 10.00 [10.00, 10.00] by CPU time"
    assert f"{mode}: {ratios}; at least 10 is the goal" in told


def test_goals_stand_beside_what_was_measured(report):
    told = report.notes()
    assert "usage_by_domain: at most 2 s, here 0.03" in told
    assert "bootstrap: at most 20 s, here 0.60" in told
    assert "rows: at least 50 times usage_by_domain, here 100" in told
    assert "rows: at least 25 million choices/s, here 5.3" in told
