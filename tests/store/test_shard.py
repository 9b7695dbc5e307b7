import dataclasses
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.store.conftest import make_rows, together
from tracer.errors import DamagedDataError
from tracer.schema import arrow_schema
from tracer.store.lake_location import open_storage
from tracer.store.shard import ShardWriter
from tracer.store.shard_rows import RouterWeights


@pytest.fixture
def writer(tmp_path):
    return ShardWriter(open_storage(tmp_path), "r", num_experts=4, precision="f32")


def read(tmp_path, table):
    return pq.read_table(tmp_path / table / "r" / "000000-w0.parquet")


def test_routing_rows_are_sorted_by_layer_request_position(writer, tmp_path):
    writer.write("000000-w0", together(make_rows("b"), make_rows("a")))
    rows = read(tmp_path, "routing").to_pylist()
    keys = [(row["layer_id"], row["request_id"], row["position"]) for row in rows]
    assert keys == [(n, q, p) for n in (0, 2) for q in ("b", "a") for p in (0, 1, 2)]
    assert rows[2] == {
        "run_id": "r",
        "request_id": "b",
        "position": 2,
        "layer_id": 0,
        "phase": "generated",
        "expert_ids": [3, 0],
        "gate_weights": [0.75, 0.125],
    }


def test_one_row_group_per_layer_and_measured_encodings(writer, tmp_path):
    writer.write("000000-w0", make_rows("a"))
    meta = pq.read_metadata(tmp_path / "routing" / "r" / "000000-w0.parquet")
    assert meta.num_row_groups == 2
    group = meta.row_group(0)
    columns = {group.column(i).path_in_schema: group.column(i) for i in range(group.num_columns)}
    assert "BYTE_STREAM_SPLIT" in columns["gate_weights.list.element"].encodings
    assert "DELTA_BINARY_PACKED" in columns["position"].encodings
    assert "RLE_DICTIONARY" in columns["expert_ids.list.element"].encodings
    assert {column.compression for column in columns.values()} == {"ZSTD"}
    assert (columns["layer_id"].statistics.min, columns["layer_id"].statistics.max) == (0, 0)


@pytest.mark.parametrize("table", ["routing", "tokens", "usage", "usage_by_domain"])
def test_files_have_the_schema_of_their_table(writer, tmp_path, table):
    writer.write("000000-w0", make_rows("a"))
    assert read(tmp_path, table).schema.equals(arrow_schema(table))


def test_tokens_hold_the_last_sampled_one(writer, tmp_path):
    """Three forwarded tokens and one sampled last: four rows, two of them prompt."""
    writer.write("000000-w0", make_rows("a"))
    rows = read(tmp_path, "tokens").to_pydict()
    assert rows["token_id"] == [10, 11, 12, 13]
    assert rows["phase"] == ["prompt", "prompt", "generated", "generated"]


def test_bf16_weights_are_rounded_and_rollups_agree_with_rows(tmp_path):
    weights = [0.1, 0.7]
    rows = make_rows(
        choices={n: [[(0, weights[0]), (1, weights[1])]] * 3 for n in (0, 2)}, prompt=3
    )
    ShardWriter(open_storage(tmp_path), "r", num_experts=4, precision="bf16").write(
        "000000-w0", rows
    )
    rows = read(tmp_path, "routing").to_pylist()
    assert rows[0]["gate_weights"] == [0.69921875, 0.10009765625]
    usage = read(tmp_path, "usage").to_pylist()
    assert usage[0]["weight_sum"] == [3 * 0.10009765625, 3 * 0.69921875]


def test_damaged_rows_leave_no_file(writer, tmp_path):
    """Found in the second layer, when the first is written already."""
    weights = make_rows("b").gate_weights
    weights[2, 1, 0] = np.nan
    bad = dataclasses.replace(make_rows("b"), gate_weights=weights)
    with pytest.raises(DamagedDataError, match="request 'b' has a gate weight that is not a"):
        writer.write("000000-w0", together(make_rows("a"), bad))
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_failed_write_leaves_no_file(writer, tmp_path):
    """The folder of `usage` is a file: the shard's first two files are taken back."""
    (tmp_path / "usage").write_text("in the way")
    with pytest.raises(OSError, match="usage"):
        writer.write("000000-w0", make_rows("a"))
    assert not list(tmp_path.rglob("*.parquet"))
    assert not list(tmp_path.rglob("*.tmp"))


def test_running_out_of_space_leaves_no_file(tmp_path):
    """A process that may write 4 kB a file gets EFBIG inside the Parquet writer."""
    script = (
        "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096));"
        "import numpy as np; from tracer.store.lake_location import open_storage;"
        "from tracer.store.shard import ShardWriter; "
        "from tracer.store.shard_rows import ShardRows, TracedRequest;"
        "rng = np.random.default_rng(0); n = 4000;"
        "ids = np.argsort(rng.random((n, 2, 64)), -1)[..., :8].astype(np.int16);"
        "request = TracedRequest('q', 'd', n, np.arange(n + 1, dtype=np.int32), n);"
        "rows = ShardRows((0, 1), [request], np.arange(n, dtype=np.int32), ids,"
        " rng.random((n, 2, 8), dtype=np.float32));"
        f"ShardWriter(open_storage({str(tmp_path)!r}), 'r', 64, 'f32').write('000000-w0', rows)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "OSError" in done.stderr
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_packed_records_give_the_same_files(tmp_path):
    """Ids of one byte and bfloat16 weights inside records of 21 bytes, as a recorder has them."""
    plain = together(make_rows("b"), make_rows("a", domain="art", prompt=1))
    records = np.zeros((6, 21), dtype=np.uint8)
    ids = records[:, 1:5].reshape(6, 2, 2)
    ids[:] = plain.expert_ids
    weights = np.ndarray((6, 2, 2), np.uint16, records, offset=8, strides=(21, 4, 2))
    weights[:] = plain.gate_weights.view(np.uint32) >> 16  # all are powers of two and their sums
    packed = dataclasses.replace(plain, expert_ids=ids, gate_weights=weights)
    assert not packed.gate_weights.flags.c_contiguous
    for name, rows in (("plain", plain), ("packed", packed)):
        ShardWriter(open_storage(tmp_path / name), "r", num_experts=4, precision="bf16").write(
            "000000-w0", rows
        )
    files = sorted(path.relative_to(tmp_path / "plain") for path in tmp_path.glob("plain/*/*/*"))
    assert len(files) == 4
    for file in files:
        assert (tmp_path / "plain" / file).read_bytes() == (tmp_path / "packed" / file).read_bytes()


def test_usage_is_by_layer_request_and_phase(writer, tmp_path):
    writer.write("000000-w0", together(make_rows("b"), make_rows("a")))
    rows = read(tmp_path, "usage").to_pylist()
    assert [(row["layer_id"], row["request_id"], row["phase"]) for row in rows] == [
        (layer, request, phase)
        for layer in (0, 2)
        for request in ("b", "a")
        for phase in ("prompt", "last-prompt", "generated")
    ]
    assert rows[3] == {
        "run_id": "r",
        "request_id": "a",
        "phase": "prompt",
        "layer_id": 0,
        "num_tokens": 2,
        "expert_ids": [1, 2, 3],
        "num_choices": [2, 1, 1],
        "weight_sum": [0.75, 0.5, 0.5],
    }


def test_usage_by_domain_is_by_domain_phase_layer_and_expert(writer, tmp_path):
    writer.write("000000-w0", together(make_rows("b"), make_rows("a", domain="art")))
    rows = read(tmp_path, "usage_by_domain").to_pylist()
    keys = [(row["domain"], row["phase"], row["layer_id"], row["expert_id"]) for row in rows]
    assert keys == sorted(keys)
    assert rows[-3] == {
        "run_id": "r",
        "shard": "000000-w0",
        "domain": "law",
        "phase": "prompt",
        "layer_id": 0,
        "expert_id": 3,
        "num_choices": 1,
        "weight_sum": 0.5,
        "weight_sq_sum": 0.25,
        "weight_min": 0.5,
        "weight_max": 0.5,
    }


def test_later_stages_leave_tokens_out(writer, tmp_path):
    files = writer.write("000000-w0", make_rows(), tokens=False)
    assert {file.table for file in files} == {"routing", "usage", "usage_by_domain"}
    assert not (tmp_path / "tokens").exists()


def test_no_requests_are_no_files(writer, tmp_path):
    empty = dataclasses.replace(
        make_rows(),
        requests=[],
        positions=np.empty(0, np.int32),
        expert_ids=np.empty((0, 2, 2), np.uint8),
        gate_weights=np.empty((0, 2, 2), np.float32),
    )
    assert writer.write("000000-w0", empty) == []
    assert not list(tmp_path.iterdir())


def test_a_request_of_cached_tokens_alone_has_no_rows(writer, tmp_path):
    """Its tokens are kept; the other request of the batch has its rows."""
    cached = make_rows("cached")
    requests = [dataclasses.replace(cached.requests[0], num_rows=0), *make_rows("a").requests]
    writer.write("000000-w0", dataclasses.replace(cached, requests=requests))
    assert set(read(tmp_path, "routing")["request_id"].to_pylist()) == {"a"}
    assert set(read(tmp_path, "usage")["request_id"].to_pylist()) == {"a"}
    assert read(tmp_path, "tokens")["request_id"].to_pylist() == ["cached"] * 4 + ["a"] * 4


def test_candidates_and_logits_are_written_where_they_were_recorded(writer, tmp_path):
    """Logits lose what float16 would lose: 1 + 2**-11 becomes 1."""
    logits = np.zeros((3, 2, 4), dtype=np.float32)
    logits[2, 1] = [1 + 2**-11, -2.5, 0.25, 7.0]
    scores = np.tile(np.array([0.75, 0.5, 0.5], dtype=np.float32), (3, 2, 1))
    ids = np.tile(np.array([2, 3, 0], dtype=np.uint8), (3, 2, 1))
    rows = dataclasses.replace(
        make_rows("a"), candidate_ids=ids, candidate_scores=scores, router_logits=logits
    )
    files = {file.table: file for file in writer.write("000000-w0", rows)}
    assert (files["candidates"].num_rows, files["router_logits"].num_rows) == (6, 6)
    candidates = read(tmp_path, "candidates")
    assert candidates.schema.equals(arrow_schema("candidates"))
    key = {"run_id": "r", "request_id": "a", "position": 2, "layer_id": 2}
    assert candidates.to_pylist()[-1] == {
        **key,
        "expert_ids": [2, 3, 0],
        "scores": [0.75, 0.5, 0.5],
    }
    stored = read(tmp_path, "router_logits")
    assert stored.schema.equals(arrow_schema("router_logits"))
    assert stored.to_pylist()[-1] == {**key, "logits": [1.0, -2.5, 0.25, 7.0]}


def test_damaged_logits_take_the_whole_shard_back(writer, tmp_path):
    logits = np.full((3, 2, 4), np.nan, dtype=np.float32)
    with pytest.raises(DamagedDataError, match="router logit"):
        writer.write("000000-w0", dataclasses.replace(make_rows(), router_logits=logits))
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_router_weights_are_kept_exactly(writer, tmp_path):
    weight = np.arange(12, dtype=np.float32).reshape(4, 3) / 7
    bias = np.array([0.1, -0.1, 0.0, 1e-30], dtype=np.float32)
    file = writer.write_routers(
        "w0", {9: RouterWeights(weight), 2: RouterWeights(weight, None, bias)}
    )
    assert (file.table, file.path, file.num_rows) == ("routers", "r/w0.parquet", 2)
    table = pq.read_table(tmp_path / "routers" / "r" / "w0.parquet")
    assert table.schema.equals(arrow_schema("routers"))
    first, second = table.to_pylist()
    assert (first["layer_id"], second["layer_id"]) == (2, 9)
    assert (first["num_experts"], first["hidden_size"]) == (4, 3)
    assert first["weight"] == second["weight"] == weight.ravel().tolist()
    assert first["selection_bias"] == bias.tolist()
    assert [first["bias"], second["bias"], second["selection_bias"]] == [None] * 3


@pytest.mark.parametrize(
    "router",
    [
        RouterWeights(np.zeros((3, 4), np.float32)),
        RouterWeights(np.zeros((4, 3), np.float32), np.zeros(3, np.float32)),
    ],
)
def test_a_router_of_other_experts_is_refused(writer, tmp_path, router):
    with pytest.raises(DamagedDataError, match="router of layer 5"):
        writer.write_routers("w0", {5: router})
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
