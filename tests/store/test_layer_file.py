"""Files of our own encoding, read by other programs: pyarrow, DuckDB, Polars."""

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tracer.schema import arrow_schema
from tracer.store import column_chunks, list_chunks
from tracer.store.column_chunks import Runs
from tracer.store.layer_file import Layer, write_layers, write_plain


def shared_columns(rows):
    requests = pa.array([f"q{row // 3}" for row in range(rows)], pa.string())
    return pa.table(
        {
            "run_id": pa.array(["r"] * rows, pa.string()),
            "request_id": requests,
            "position": pa.array([row % 3 for row in range(rows)], pa.int32()),
            "phase": pa.array(["prompt" if row % 3 else "generated" for row in range(rows)]),
        }
    )


def random_layers(rows, width, num_experts, layer_ids=(0, 7, 300)):
    rng = np.random.default_rng(rows)
    for layer_id in layer_ids:
        order = np.argsort(rng.random((rows, num_experts)), axis=-1)[:, :width]
        weights = rng.normal(size=(rows, width)).astype(np.float32)
        yield Layer(layer_id, width, [order.astype(np.int16), weights])


def expected_rows(shared, layers):
    return [
        {**row, "layer_id": layer.layer_id, "expert_ids": ids, "gate_weights": weights}
        for layer in layers
        for row, ids, weights in zip(
            shared.to_pylist(), *(values.tolist() for values in layer.lists), strict=True
        )
    ]  # dictionaries are equal whatever the order of their columns


def by_pyarrow(path):
    return pq.ParquetFile(path).read().to_pylist()


def by_duckdb(path):
    return duckdb.sql(f"select * from read_parquet('{path}')").to_arrow_table().to_pylist()


def by_polars(path):
    return pl.read_parquet(path, hive_partitioning=False).to_dicts()


def columns_of(table):
    """The columns of an Arrow table in the form that the writer takes; every row a run."""
    columns = {}
    for name in table.column_names:
        values = table[name].to_pylist()
        if isinstance(values[0], str):
            texts = sorted(set(values), reverse=True)
            numbers = np.array([texts.index(value) for value in values])
            columns[name] = Runs(texts, numbers, np.ones(len(values), np.int64))
        else:
            columns[name] = (np.array(values, np.int32), "DELTA_BINARY_PACKED")
    return columns


def write(path, shared, layers, num_experts, table="routing"):
    with path.open("wb") as file:
        return write_layers(
            file,
            arrow_schema(table),
            rows=shared.num_rows,
            shared=columns_of(shared) if shared.num_rows else {},
            layers=layers,
            num_experts=num_experts,
        )


@pytest.mark.parametrize("read", [by_pyarrow, by_duckdb, by_polars])
@pytest.mark.parametrize("page_values", [20, 1 << 18], ids=["many pages", "one page"])
@pytest.mark.parametrize(
    "shape",  # rows, width, experts
    [
        (1, 1, 1),
        (7, 1, 3),
        (5, 3, 9),
        (9, 3, 16),
        (9, 3, 17),
        (40, 8, 64),
        (33, 7, 256),
        (33, 5, 257),
        (9, 22, 512),
    ],
)
def test_readers_find_every_row(tmp_path, monkeypatch, read, page_values, shape):
    monkeypatch.setattr(list_chunks, "_PAGE_VALUES", page_values)
    rows, width, num_experts = shape
    shared = shared_columns(rows)
    layers = list(random_layers(rows, width, num_experts))
    path = tmp_path / "file.parquet"
    assert write(path, shared, layers, num_experts) == 3 * rows
    assert read(path) == expected_rows(shared, layers)


@pytest.mark.parametrize("read", [by_pyarrow, by_duckdb, by_polars])
@pytest.mark.parametrize("page_values", [4, 1 << 18], ids=["many pages", "one page"])
@pytest.mark.parametrize("scale", [1, 100, 70_000])
def test_lists_of_different_lengths(tmp_path, monkeypatch, read, page_values, scale):
    """`usage`: counts below 256, below 65,536 and beyond, where a dictionary does not pay."""
    monkeypatch.setattr(list_chunks, "_PAGE_VALUES", page_values)
    lengths = np.array([1, 9, 2, 1, 17, 3])
    ids = np.concatenate([np.arange(length, dtype=np.int16) for length in lengths])
    counts = (np.arange(33, dtype=np.int32) + 1) * scale
    sums = np.arange(33) / 7
    groups = pa.table(
        {
            "run_id": ["r"] * 6,
            "request_id": ["a", "a", "b", "b", "c", "c"],
            "phase": ["prompt", "generated"] * 3,
            "num_tokens": pa.array([30, 1, 2, 3, 4, 5], pa.int32()),
        }
    )
    path = tmp_path / "file"
    layers = [Layer(4, lengths, [ids, counts, sums]), Layer(5, lengths[::-1], [ids, counts, sums])]
    assert write(path, groups, layers, 17, "usage") == 12
    ends = {4: lengths.cumsum().tolist(), 5: lengths[::-1].cumsum().tolist()}
    expected = [
        {
            **row,
            "layer_id": layer,
            "expert_ids": ids[begin:end].tolist(),
            "num_choices": counts[begin:end].tolist(),
            "weight_sum": sums[begin:end].tolist(),
        }
        for layer in (4, 5)
        for row, begin, end in zip(
            groups.to_pylist(), [0, *ends[layer][:-1]], ends[layer], strict=True
        )
    ]
    assert read(path) == expected
    assert pq.read_schema(path).equals(arrow_schema("usage"))


@pytest.mark.parametrize("read", [by_pyarrow, by_duckdb, by_polars])
@pytest.mark.parametrize("page_values", [100, 1 << 18], ids=["many pages", "one page"])
@pytest.mark.parametrize(
    "counts",
    [
        np.arange(600) % 7 * 40,  # few numbers, whose dictionary is that of a byte
        np.arange(1000)[::-1] // 2 + 1,  # 500, of nine bits
        np.append(np.arange(1, 4100), [1] * 1000),
    ],
)
def test_counts_beyond_a_byte_have_a_dictionary(tmp_path, monkeypatch, read, page_values, counts):
    monkeypatch.setattr(list_chunks, "_PAGE_VALUES", page_values)
    counts = counts.astype(np.int32)
    groups = pa.table(
        {
            "run_id": ["r"] * 2,
            "request_id": ["a", "b"],
            "phase": ["prompt"] * 2,
            "num_tokens": pa.array([3, 1], pa.int32()),
        }
    )
    ids, sums = np.zeros(len(counts), np.int16), np.zeros(len(counts))
    path = tmp_path / "file"
    lengths = np.array([len(counts) - 3, 3])
    write(path, groups, [Layer(0, lengths, [ids, counts, sums])], 4, "usage")
    lists = [counts[:-3].tolist(), counts[-3:].tolist()]
    assert [row["num_choices"] for row in read(path)] == lists
    column = pq.read_metadata(path).row_group(0).column(6)
    assert column.path_in_schema == "num_choices.list.element"
    assert column.has_dictionary_page


@pytest.mark.parametrize("read", [by_pyarrow, by_duckdb, by_polars])
@pytest.mark.parametrize("page_bytes", [64, 1 << 20], ids=["many pages", "one page"])
def test_numbers_of_every_kind_in_plain_columns(tmp_path, monkeypatch, read, page_bytes):
    """`usage_by_domain`: layers that repeat, 64-bit counts, floats; bounds of them all."""
    monkeypatch.setattr(column_chunks, "_PAGE_BYTES", page_bytes)
    rows = 300
    one, zero = np.array([rows]), np.zeros(1, np.int64)
    sums = np.linspace(-2, 3, rows)
    least = np.where(np.arange(rows) % 2, np.float32(0.0), np.float32(-0.5))
    columns = {
        "run_id": Runs(["r"], zero, one),
        "shard": Runs(["s"], zero, one),
        "domain": Runs(["law"], zero, one),
        "phase": Runs(["generated", "prompt"], np.array([0, 1]), np.array([100, 200])),
        "layer_id": Runs(range(3, 300, 99), np.array([2, 0, 1]), np.array([100, 150, 50])),
        "expert_id": (np.arange(rows, dtype=np.int32), "DELTA_BINARY_PACKED"),
        "num_choices": (np.arange(rows) << 33, "DELTA_BINARY_PACKED"),
        "weight_sum": (sums, "BYTE_STREAM_SPLIT"),
        "weight_sq_sum": (sums**2, "BYTE_STREAM_SPLIT"),
        "weight_min": (least, "BYTE_STREAM_SPLIT"),
        "weight_max": (np.abs(least), "BYTE_STREAM_SPLIT"),
    }
    path = tmp_path / "file.parquet"
    with path.open("wb") as file:
        assert write_plain(file, arrow_schema("usage_by_domain"), rows, columns) == rows
    assert pq.read_schema(path).equals(arrow_schema("usage_by_domain"))
    found = read(path)
    assert [row["layer_id"] for row in found] == [201] * 100 + [3] * 150 + [102] * 50
    assert [row["phase"] for row in found] == ["generated"] * 100 + ["prompt"] * 200
    for name, values in columns.items():
        if not isinstance(values, Runs):
            assert [row[name] for row in found] == values[0].tolist()
    group = pq.read_metadata(path).row_group(0)
    bounds = {
        column.path_in_schema: (column.statistics.min, column.statistics.max)
        for column in map(group.column, range(group.num_columns))
    }
    assert bounds["layer_id"] == (3, 201)
    assert bounds["num_choices"] == (0, 299 << 33)
    assert bounds["weight_sum"] == (-2.0, 3.0)
    assert bounds["weight_min"] == (-0.5, 0.0)
    assert bounds["weight_max"] == (0.0, 0.5)


def test_bf16_weights_are_read_back_exactly(tmp_path):
    weights = np.array([[1.0, 0.5], [-0.15625, 0.0], [3e38, 1e-38]], dtype=np.float32)
    weights = (weights.view(np.uint32) & np.uint32(0xFFFF_0000)).view(np.float32)
    ids = np.array([[0, 1]] * 3, dtype=np.int16)
    write(tmp_path / "file", shared_columns(3), [Layer(0, 2, [ids, weights])], 2)
    assert pq.read_table(tmp_path / "file")["gate_weights"].to_pylist() == weights.tolist()


def test_the_file_has_the_schema_of_its_table(tmp_path):
    for table in ("routing", "candidates", "router_logits"):
        arrays = next(random_layers(3, 2, 2, layer_ids=(0,))).lists
        lists = arrays if table != "router_logits" else arrays[1:]
        names = [n for n in shared_columns(0).column_names if n in arrow_schema(table).names]
        write(tmp_path / table, shared_columns(3).select(names), [Layer(0, 2, lists)], 2, table)
        assert pq.read_schema(tmp_path / table).equals(arrow_schema(table))


def test_readers_can_skip_layers_by_their_bounds(tmp_path):
    path = tmp_path / "file.parquet"
    write(path, shared_columns(6), random_layers(6, 2, 4), 4)
    meta = pq.read_metadata(path)
    names = meta.schema.names
    for number, layer_id in enumerate((0, 7, 300)):
        group = meta.row_group(number)
        layer, request, position, run = (
            group.column(names.index(n)).statistics
            for n in ("layer_id", "request_id", "position", "run_id")
        )
        assert (layer.min, layer.max, layer.null_count) == (layer_id, layer_id, 0)
        assert (request.min, request.max) == ("q0", "q1")
        assert (position.min, position.max) == (0, 2)
        assert (run.min, run.max) == ("r", "r")
    where = f"select count(*) from read_parquet('{path}') where layer_id = 7 and request_id = 'q1'"
    assert duckdb.sql(where).fetchall() == [(3,)]
    lazy = pl.scan_parquet(path).filter(pl.col("layer_id") == 300, pl.col("position") == 2)
    assert lazy.collect().height == 2


def test_sizes_in_the_metadata_are_those_of_the_file(tmp_path):
    """Column chunks follow each other without a gap, from the magic number to the footer."""
    path = tmp_path / "file.parquet"
    write(path, shared_columns(50), random_layers(50, 4, 300), 300)
    meta = pq.read_metadata(path)
    end = 4
    for group in (meta.row_group(n) for n in range(meta.num_row_groups)):
        raw = 0
        for column in (group.column(n) for n in range(group.num_columns)):
            begin = column.dictionary_page_offset or column.data_page_offset
            assert begin == end
            end = begin + column.total_compressed_size
            raw += column.total_uncompressed_size
        assert group.total_byte_size == raw
    assert end == path.stat().st_size - meta.serialized_size - 8


def test_long_and_many_request_ids(tmp_path):
    """Ids too long for bounds, and more of them than pyarrow's dictionary takes by default."""
    ids = [f"{'ü' * 3000}{number}" for number in range(400)]
    shared = shared_columns(400).set_column(1, "request_id", pa.array(ids))
    layers = list(random_layers(400, 2, 4))
    path = tmp_path / "file"
    write(path, shared, layers, 4)
    for read in (by_pyarrow, by_duckdb, by_polars):
        assert read(path) == expected_rows(shared, layers)
    column = pq.read_metadata(path).row_group(1).column(1)
    assert set(column.encodings) == {"PLAIN", "RLE", "RLE_DICTIONARY"}
    assert column.total_uncompressed_size < 400 * 6100


def test_no_rows_are_an_empty_file(tmp_path):
    layers = [Layer(0, 2, [np.empty((0, 2), np.int16), np.empty((0, 2), np.float32)])]
    assert write(tmp_path / "file", shared_columns(0), layers, 4) == 0
    assert pq.read_table(tmp_path / "file").num_rows == 0
    assert pl.read_parquet(tmp_path / "file").height == 0


@pytest.mark.parametrize("read", [by_pyarrow, by_duckdb, by_polars])
def test_runs_of_every_length(tmp_path, read):
    """Lengths around the limits of their bytes: 63, 8191 and 1,048,575 fill one, two and three.

    Texts that stand nowhere leave no trace.
    """
    lengths = np.zeros(300, np.int64)
    lengths[[0, 1, 2, 3, 4, 255, 256, 298]] = (1, 63, 64, 8191, 8192, 100_000, 1_048_576, 2)
    texts = [f"t{number:03}" for number in range(300)]
    rows = int(lengths.sum())
    columns = {
        "run_id": Runs(["r"], np.zeros(1, np.int64), np.array([rows])),
        "request_id": Runs(texts, np.arange(300), lengths),
        "position": (np.arange(rows, dtype=np.int32), "DELTA_BINARY_PACKED"),
        "token_id": (np.arange(rows, dtype=np.int32) % 3 - 1, "RLE_DICTIONARY"),
        "phase": Runs(("prompt", "generated"), np.zeros(1, np.int64), np.array([rows])),
    }
    path = tmp_path / "file"
    with path.open("wb") as file:
        assert write_plain(file, arrow_schema("tokens"), rows, columns) == rows
    found = read(path)
    expected = np.repeat(texts, lengths).tolist()
    assert [row["request_id"] for row in found] == expected
    assert [row["position"] for row in found] == list(range(rows))
    assert {(row["run_id"], row["phase"]) for row in found} == {("r", "prompt")}
    assert [row["token_id"] for row in found[:4]] == [-1, 0, 1, -1]
    bounds = {
        column.path_in_schema: column.statistics
        for column in map(pq.read_metadata(path).row_group(0).column, range(5))
    }
    assert (bounds["request_id"].min, bounds["request_id"].max) == ("t000", "t298")
    assert (bounds["token_id"].min, bounds["token_id"].max) == (-1, 1)
    assert (bounds["phase"].min, bounds["phase"].max) == ("prompt", "prompt")
    assert all(bound.null_count == 0 for bound in bounds.values())


def test_three_hundred_texts_in_use_take_numbers_of_two_bytes(tmp_path):
    shared = shared_columns(900)
    layers = list(random_layers(900, 2, 4, layer_ids=(0,)))
    write(tmp_path / "file", shared, layers, 4)
    assert by_pyarrow(tmp_path / "file") == expected_rows(shared, layers)
    assert by_duckdb(tmp_path / "file") == expected_rows(shared, layers)
