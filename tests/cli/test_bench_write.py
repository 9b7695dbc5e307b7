"""`tracer bench write`: what it writes is what it says; how long that takes is not tested."""

import json
from itertools import pairwise

import numpy as np
import pyarrow.parquet as pq
import pytest

from tracer.bench.bare_files import arrow_layers, write_routing, write_with_pyarrow
from tracer.bench.code_length import code_bytes
from tracer.bench.loads import Spent
from tracer.bench.made_routing import MADE_MODELS, NUM_DOMAINS, MadeModel, make_routing
from tracer.bench.write import MODES, Sizes, WriteCost, measure_write
from tracer.store.choices import as_float32
from tracer.store.lake_location import open_storage
from tracer.store.shard import ShardWriter
from tracer.workflow.bench_write import WriteReport

SMALL = MadeModel(num_layers=3, num_experts=16, top_k=4, vocabulary=500, renormalised=True)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--tokens", "0"], "--tokens"),
        (["--rounds", "0"], "--rounds"),
        (["--model", "huge"], "--model"),
    ],
)
def test_wrong_usage_is_refused(tracer, words, told):
    assert tracer("bench", "write", *words).failed(2, told)


def test_a_lake_is_written_and_its_sizes_are_told(tracer, tmp_path):
    """Two rounds and one before them: three batches, which verify finds nothing wrong with."""
    cost = measure_write(SMALL, 500, 2, tmp_path, lambda _: None)
    folder = tmp_path / "lake"
    for table, size in cost.sizes.files.items():
        (file,) = folder.glob(f"{table}/bench/000002*.parquet")
        assert file.stat().st_size == size
        assert len(list(folder.glob(f"{table}/bench/*.parquet"))) == 3
    assert set(cost.sizes.files) == {"routing", "tokens", "usage", "usage_by_domain", "requests"}
    assert cost.sizes.pyarrow == (tmp_path / "pyarrow.parquet").stat().st_size
    assert cost.sizes.num_rows == 500 * 3
    assert cost.num_choices == 500 * 3 * 4
    assert {mode: len(spent) for mode, spent in cost.spent.items()} == dict.fromkeys(MODES, 2)
    assert tracer("verify", "--lake", folder).exit_code == 0


def test_all_writers_write_the_same_rows(tmp_path):
    rows = make_routing(SMALL, 500).batch(7)
    (shard, *_) = ShardWriter(open_storage(tmp_path), "bench", SMALL.num_experts, "bf16").write(
        "whole", rows
    )
    bare = write_routing(open_storage(tmp_path), rows, SMALL.num_experts)
    assert bare.sha256 == shard.sha256
    write_with_pyarrow(tmp_path / "bare.parquet", arrow_layers(rows, SMALL.num_experts))
    theirs = pq.ParquetFile(tmp_path / "bare.parquet")
    ours = pq.ParquetFile(tmp_path / "routing" / bare.path)
    assert theirs.read().to_pylist() == ours.read().to_pylist()
    assert theirs.num_row_groups == ours.num_row_groups == SMALL.num_layers
    for column in range(theirs.metadata.num_columns):
        left, right = (file.metadata.row_group(0).column(column) for file in (theirs, ours))
        assert left.path_in_schema == right.path_in_schema
        assert left.compression == right.compression == "ZSTD"
        assert {*left.encodings} == {*right.encodings}


@pytest.mark.parametrize("name", MADE_MODELS)
def test_made_routing_is_as_a_router_makes_it(name):
    model = MADE_MODELS[name]
    made = make_routing(model, 700)
    rows = made.rows
    rows.check(model.num_experts)
    assert rows.expert_ids.shape == (700, model.num_layers, model.top_k)
    assert rows.expert_ids.dtype == np.uint8
    assert rows.gate_weights.dtype == np.uint16
    assert np.shares_memory(rows.expert_ids, made.block)
    assert np.shares_memory(rows.gate_weights, made.block)
    assert made.block.shape == (700, model.num_layers * model.top_k * 3 + 8)
    weights = as_float32(rows.gate_weights)
    assert (np.diff(weights, axis=-1) <= 0).all()
    sums = weights.sum(axis=-1)
    assert (sums < 1.02).all()
    assert (sums > 0.98).all() == model.renormalised
    again = make_routing(model, 700)
    assert np.array_equal(made.block, again.block)
    # Popular experts and rare ones, and fewer requests than would be of one token each.
    used = np.bincount(rows.expert_ids[:, 0].ravel(), minlength=model.num_experts)
    assert used.max() > 5 * np.median(used)
    assert 1 < len(rows.requests) <= 700 // 48 + 1
    assert {request.domain for request in rows.requests} <= {
        f"domain-{number:02d}" for number in range(NUM_DOMAINS)
    }


def test_batches_share_rows_and_no_request():
    made = make_routing(SMALL, 300)
    first, second = made.batch(0), made.batch(1)
    assert first.expert_ids is second.expert_ids
    names = [{request.request_id for request in part.requests} for part in (first, second)]
    assert not names[0] & names[1]


def test_a_code_learns_what_it_is_not_told():
    """Per rank: nothing for a constant; log2 of 1/2, 1/4, 1/2, 3/8 for a, b, a, b of two."""
    ids = np.array([[3, 0], [3, 1], [3, 0], [3, 1]], dtype=np.int16)
    same = np.full((4, 2), 0.5, dtype=np.float32)
    steps = [1 / 2, (1 / 2) / 2, (3 / 2) / 3, (3 / 2) / 4]
    assert code_bytes(ids, same) == pytest.approx(-np.log2(np.prod(steps)) / 8)
    assert code_bytes(ids, same[:, ::-1]) == code_bytes(ids, same)


def test_a_code_of_many_is_near_the_entropy():
    ids = np.random.default_rng(0).integers(16, size=(20_000, 1))
    weights = np.ones((20_000, 1), dtype=np.float32)
    assert code_bytes(ids, weights) == pytest.approx(20_000 * 4 / 8, rel=0.01)


@pytest.fixture
def report():
    """Two rounds of 8 million choices, 1 million rows; all 2 s, sums 1.5 s, rows 1 s."""
    cpu = {"lake": 2, "sums": 1.5, "rows": 1, "pyarrow": 4, "zstd": 0.5, "copy": 0.25}
    spent = {mode: [Spent(seconds, 9), Spent(2 * seconds, 9)] for mode, seconds in cpu.items()}
    files = {"routing": 15, "usage": 2, "usage_by_domain": 1, "tokens": 0.5, "requests": 0.25}
    sizes = {table: int(size * 1e6) for table, size in files.items()}
    cost = WriteCost(
        MADE_MODELS["olmoe"], 62_500, 170, 8_000_000, spent,
        Sizes(1_000_000, sizes, 16_000_000, 14_000_000, 12.5e6),
    )  # fmt: skip
    return WriteReport("olmoe", 2, cost)


def test_figures_are_by_cpu_time_of_the_median_round(report):
    figures = report.to_dict()
    assert figures["mchoices_per_s"] == round(8 / 3, 3)
    assert figures["write_ratio_vs_pyarrow"] == 2
    assert figures["write_ratio_interval"] == [2, 2]
    assert figures["rows_ratio_vs_pyarrow"] == 4
    assert figures["rollups_on_top"] == 0.5
    assert figures["rollups_of_pyarrow"] == 0.125
    assert figures["bytes_per_row_routing"] == 15
    assert figures["bytes_per_row_all"] == 18.75
    assert figures["bytes_per_row_raw"] == 40
    assert figures["bytes_per_row_code"] == 12.5


def test_the_table_has_every_mode_and_the_goals_stand_below(report):
    columns, rows = report.table()
    assert [len(row) for row in rows] == [len(columns)] * len(MODES)
    assert rows[0] == ["all tables and their commit", "2.67", "2.000 [2.000, 2.000]", "18.75"]
    assert rows[3][2] == ""
    told = "\n".join(report.notes())
    assert "routing at most 15.6 bytes with its keys, here 15.00" in told
    assert "at least 0.8 of pyarrow's speed, here 2.00" in told
    assert "rollups add at most 0.25 of pyarrow's time" in told
    assert "(of routing's 0.50)" in told
    assert "fewer than 15 rounds are no result" in told


def test_the_command_prints_a_table_and_one_line_of_json(tracer):
    told = tracer("bench", "write", "--tokens", "300", "--rounds", "1")
    assert told.exit_code == 0
    *lines, last = told.stdout.splitlines()
    figures = json.loads(last)
    assert figures["tokens"] == 300
    assert figures["choices"] == 300 * 16 * 8
    per_row = figures["bytes_per_row_all"]
    tables = ("routing", "usage", "usage_by_domain", "tokens", "requests")
    total = sum(figures[f"{table}_bytes"] for table in tables)
    assert per_row == pytest.approx(total / (300 * 16), abs=1e-3)
    assert all(left <= right for left, right in pairwise(figures["write_ratio_interval"]))
    assert len(lines) > len(MODES)
    alone = tracer("bench", "write", "--tokens", "300", "--rounds", "1", "--format", "json")
    assert len(alone.stdout.splitlines()) == 1
