import dataclasses
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.store.conftest import make_rows, together
from tracer.errors import DamagedDataError
from tracer.schema import arrow_schema
from tracer.store.shard import ShardWriter


@pytest.fixture
def writer(tmp_path):
    return ShardWriter(tmp_path, "r", num_experts=4, precision="f32")


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
    ShardWriter(tmp_path, "r", num_experts=4, precision="bf16").write("000000-w0", rows)
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
        "from pathlib import Path; import numpy as np;"
        "from tracer.store.shard import ShardWriter; "
        "from tracer.store.shard_rows import ShardRows, TracedRequest;"
        "rng = np.random.default_rng(0); n = 4000;"
        "ids = np.argsort(rng.random((n, 2, 64)), -1)[..., :8].astype(np.int16);"
        "request = TracedRequest('q', 'd', n, np.arange(n + 1, dtype=np.int32), n);"
        "rows = ShardRows((0, 1), [request], np.arange(n, dtype=np.int32), ids,"
        " rng.random((n, 2, 8), dtype=np.float32));"
        f"ShardWriter(Path({str(tmp_path)!r}), 'r', 64, 'f32').write('000000-w0', rows)"
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
