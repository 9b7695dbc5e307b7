"""What other programs read from a lake, without a line of ours: `make test-readers`.

Runs in an environment of its own, with an older DuckDB and with Spark, on a lake that the program
made from `tests/golden/olmoe_like` in small batches and then merged. All must give the same
committee inputs: per domain, layer and expert the number of choices and the sum of gate weights.
"""

import csv
import os
from collections import defaultdict
from pathlib import Path

import duckdb
import polars as pl
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable

LAKE = Path(os.environ["TRACER_READERS_LAKE"])
FILES = {
    table: DeltaTable(str(LAKE / table)).file_uris() for table in ("routing", "requests", "usage")
}


@pytest.fixture(scope="module")
def expected():
    """As `tracer sql` gave them."""
    with Path(os.environ["TRACER_READERS_EXPECTED"]).open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) > 1000
    return {
        (row["domain"], int(row["layer_id"]), int(row["expert_id"])): (
            int(row["n"]),
            float(row["weight"]),
        )
        for row in rows
    }


def same(rows, expected):
    """Rows of domain, layer, expert, choices, weight: equal counts, sums to the last bits."""
    found = {tuple(row[:3]): (int(row[3]), float(row[4])) for row in rows}
    assert found.keys() == expected.keys()
    for key, (count, weight) in found.items():
        assert count == expected[key][0], key
        assert weight == pytest.approx(expected[key][1], rel=1e-9), key
    return True


@pytest.mark.parametrize("table", ["routing", "usage"])
def test_duckdb_1_5(table, expected):
    """The newest DuckDB is the one that made the expected rows."""
    assert duckdb.__version__.startswith("1.5")
    files, requests = (
        ", ".join(f"'{path}'" for path in FILES[name]) for name in (table, "requests")
    )
    lists = {
        "routing": "unnest(expert_ids) as e, 1 as n, unnest(gate_weights)::double as w",
        "usage": "unnest(expert_ids) as e, unnest(num_choices) as n, unnest(weight_sum) as w",
    }[table]
    wanted = "true" if table == "routing" else "phase in ('prompt', 'generated')"
    rows = duckdb.sql(
        f"select domain, layer_id, e, sum(n), sum(w) from (select request_id, layer_id, {lists}"
        f" from read_parquet([{files}]) where {wanted})"
        f" join read_parquet([{requests}]) using (request_id) group by all"
    ).fetchall()
    assert same(rows, expected)


def test_polars(expected):
    rows = (
        pl.scan_delta(str(LAKE / "routing"))
        .select("request_id", "layer_id", "expert_ids", "gate_weights")
        .explode("expert_ids", "gate_weights")
        .join(pl.scan_delta(str(LAKE / "requests")), on="request_id")
        .group_by("domain", "layer_id", "expert_ids")
        .agg(pl.len(), pl.col("gate_weights").cast(pl.Float64).sum())
        .collect()
        .rows()
    )
    assert same(rows, expected)


def test_pyarrow(expected):
    requests = ds.dataset(FILES["requests"]).to_table(columns=["request_id", "domain"])
    domain = dict(zip(*(requests[name].to_pylist() for name in requests.column_names), strict=True))
    sums = defaultdict(lambda: [0, 0.0])
    columns = ["request_id", "layer_id", "expert_ids", "gate_weights"]
    for row in ds.dataset(FILES["routing"]).to_table(columns=columns).to_pylist():
        for expert, weight in zip(row["expert_ids"], row["gate_weights"], strict=True):
            entry = sums[domain[row["request_id"]], row["layer_id"], expert]
            entry[0] += 1
            entry[1] += weight
    assert same([(*key, *entry) for key, entry in sums.items()], expected)


def test_pandas(expected):
    import pandas as pd

    rows = pd.concat(pd.read_parquet(path) for path in FILES["routing"])
    requests = pd.concat(pd.read_parquet(path) for path in FILES["requests"])
    long = rows.explode(["expert_ids", "gate_weights"]).merge(
        requests[["request_id", "domain"]], on="request_id"
    )
    long["gate_weights"] = long["gate_weights"].astype(float)
    found = long.groupby(["domain", "layer_id", "expert_ids"])["gate_weights"].agg(["size", "sum"])
    assert same(
        [(*key, *row) for key, row in zip(found.index, found.values, strict=True)], expected
    )


@pytest.mark.parametrize("vectorised", ["true", "false"])
def test_spark_on_two_workers(vectorised, expected):
    from pyspark.sql import SparkSession
    from pyspark.sql import functions as f

    spark = (
        SparkSession.builder.master("local-cluster[2,1,1024]")
        .config("spark.ui.enabled", "false")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.sql.parquet.enableVectorizedReader", vectorised)
        .config("spark.sql.parquet.enableNestedColumnVectorizedReader", vectorised)
        .config("spark.sql.shuffle.partitions", "4")
        .getOrCreate()
    )
    requests = spark.read.parquet(*FILES["requests"]).select("request_id", "domain")
    try:
        rows = (
            spark.read.parquet(*FILES["routing"])
            .select("request_id", "layer_id", f.explode(f.arrays_zip("expert_ids", "gate_weights")))
            .join(requests, "request_id")
            .groupBy("domain", "layer_id", "col.expert_ids")
            .agg(f.count("*"), f.sum(f.col("col.gate_weights").cast("double")))
            .collect()
        )
    finally:
        spark.stop()
    assert same([tuple(row) for row in rows], expected)


def test_what_was_read_is_a_merged_file():
    """The small ones that it replaced still lie there; Delta's log names them no more."""
    names = [str(path) for path in FILES["routing"]]
    assert len(names) == 1
    assert "compacted" in names[0]
    assert len(list((LAKE / "routing").rglob("*.parquet"))) > len(names)
    assert pq.read_metadata(names[0]).num_row_groups == 16
