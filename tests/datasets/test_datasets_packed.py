"""Packed and binary files: zstandard frames, Parquet columns, and damage to both."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from tracer.datasets import DatasetOptions, lines, load_dataset
from tracer.errors import DatasetError
from tracer.records import DatasetRow


def load(path, **options):
    return load_dataset(str(path), DatasetOptions(**options))


def refused(path, **options):
    with pytest.raises(DatasetError) as caught:
        load(path, **options)
    assert "\n" not in str(caught.value)
    return caught.value


def write(tmp_path, packed, name="some.jsonl.zst"):
    path = tmp_path / name
    path.write_bytes(packed)
    return path


def sound_parquet(tmp_path):
    path = tmp_path / "d.parquet"
    pq.write_table(pa.table({"id": ["a", "b"], "prompt": ["some text", "more text"]}), path)
    return path


def test_a_small_zst_that_unpacks_to_much_is_refused_early(tmp_path, monkeypatch):
    monkeypatch.setattr(lines, "MAX_LINE_BYTES", 1024 * 1024)
    packer = zstandard.ZstdCompressor().compressobj()
    packed = b"".join(packer.compress(b" " * 1024 * 1024) for _ in range(256)) + packer.flush()
    path = write(tmp_path, packed)
    assert "line 1: longer than 1048576 bytes" in str(refused(path))


ONE = b'{"prompt": "x"}\n'
# A skippable frame: magic number, length of the content, content.
SKIPPED = bytes.fromhex("502a4d18 05000000") + b"hello"


@pytest.mark.parametrize(
    ("packed", "num_rows"),
    [
        (zstandard.compress(ONE) + zstandard.compress(ONE), 2),
        (zstandard.compress(b"") + zstandard.compress(ONE), 1),
        (SKIPPED + zstandard.compress(ONE) + SKIPPED, 1),
        (zstandard.compress(ONE[:5]) + zstandard.compress(ONE[5:]), 1),
        (zstandard.compress(ONE * 20_000), 20_000),
    ],
)
def test_zst_files_of_several_frames(tmp_path, packed, num_rows):
    assert len(load(write(tmp_path, packed)).rows) == num_rows


@pytest.mark.parametrize(
    ("packed", "message"),
    [
        (zstandard.compress(ONE)[:-1], "is cut short"),
        (zstandard.compress(ONE) + zstandard.compress(ONE)[:3], "is cut short"),
        (b"no zstandard at all", "is not a sound zstandard file"),
        (zstandard.compress(ONE) + b"rubbish", "is not a sound zstandard file"),
        (b"", "has no rows"),
        (zstandard.compress(b""), "has no rows"),
    ],
)
def test_damaged_zst_files(tmp_path, packed, message):
    assert message in str(refused(write(tmp_path, packed)))


def test_damaged_parquet_files(tmp_path):
    path = sound_parquet(tmp_path)
    sound = path.read_bytes()
    for damaged in (b"", b"no parquet at all", sound[:-9], sound[9:]):
        path.write_bytes(damaged)
        assert str(path) in str(refused(path))


def test_parquet_damaged_behind_the_footer(tmp_path):
    path = sound_parquet(tmp_path)
    sound = path.read_bytes()
    path.write_bytes(sound[:4] + b"\xff" * 60 + sound[64:])
    assert "row 0: damaged" in str(refused(path))


def test_parquet_columns_of_every_kind(tmp_path):
    path = tmp_path / "k.parquet"
    table = pa.table(
        {
            "prompt": ["x"],
            "domain": pa.array(["law"]).dictionary_encode(),
            "when": pa.array([1], pa.timestamp("ns")),
            "day": pa.array([1], pa.date32()),
            "vector": [[1.0, 2.0]],
            "raw": [b"\xff"],
        }
    )
    pq.write_table(table, path)
    labels = {"when": "1970-01-01 00:00:00.000000001", "day": "1970-01-02"}
    assert load(path).rows == (DatasetRow("0", "x", "law", labels),)
    assert "row 0: 'vector' is a list" in str(refused(path, prompt_field="vector"))


def test_parquet_rows_are_named_across_batches(tmp_path):
    path = tmp_path / "n.parquet"
    pq.write_table(pa.table({"prompt": ["x"] * 1500 + [None]}), path)
    assert str(refused(path)) == f"{path}, row 1500: 'prompt' is null or missing"
    pq.write_table(pa.table({"prompt": ["x"] * 1500}), path)
    assert [row.row_id for row in load(path).rows] == [str(number) for number in range(1500)]
