"""Every command on a lake in a bucket, as on one in a folder."""

import json

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.s3.conftest import SECRET
from tracer.api import open_lake
from tracer.cli import run
from tracer.store.lake import Lake


@pytest.fixture
def tracer(capfd, monkeypatch, tmp_path):
    """``tracer("audit", "--lake", ...)`` in an empty folder: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TRACER_LAKE", raising=False)

    def call(*words):
        capfd.readouterr()
        code = run([str(word) for word in words])
        return code, *capfd.readouterr()

    return call


@pytest.fixture
def files(tmp_path):
    """A run of three requests in two domains, two layers, k = 2 of E = 4, to be imported."""
    keys = [(q, p, n) for q in ("a", "b", "c") for p in (0, 1, 2) for n in (1, 3)]
    pairs = [sorted({(p + n) % 4, (p + ord(q)) % 4, (p + n + 1) % 4})[:2] for q, p, n in keys]
    routing = {
        "request_id": [q for q, _, _ in keys],
        "position": [p for _, p, _ in keys],
        "token_id": [100 + p for _, p, _ in keys],
        "layer_id": [n for _, _, n in keys],
        "expert_ids": pairs,
        "gate_weights": [[0.5, 0.25]] * len(keys),
    }
    pq.write_table(pa.table(routing), tmp_path / "routing.parquet")
    described = {
        "request_id": ["a", "b", "c"],
        "domain": ["law", "art", "law"],
        "num_prompt_tokens": [3, 2, 3],
    }
    pq.write_table(pa.table(described), tmp_path / "requests.parquet")
    facts = {"model": "m", "num_experts": 4, "top_k": 2, "moe_layers": [1, 3]}
    (tmp_path / "run.json").write_text(json.dumps(facts))
    return ["--routing", "routing.parquet", "--requests", "requests.parquet", "--run", "run.json"]


@pytest.fixture
def both(tracer, files, place):
    """The same run imported into a bucket and into a folder."""
    for lake in (place, "lake"):
        for run_id in ("one", "two"):
            code, told, _ = tracer("import", *files, "--run-id", run_id, "--lake", lake)
            assert code == 0, told
    return place, "lake"


@pytest.mark.parametrize(
    "words",
    [
        ["audit", "--run", "one", "--format", "json"],
        ["sql", "select * exclude run_id from choices order by all", "--format", "csv"],
        ["sql", "select * from usage order by all", "--format", "csv"],
        ["sql", "select run_id, moe_layers, status from runs order by all", "--format", "json"],
        ["sql", "select layer_id, count(*) from routing where layer_id = 3 group by 1"],
        ["sql", "select count(*) from candidates", "--format", "csv"],
        ["verify", "--format", "json"],
        ["compact", "--format", "json"],
        ["upgrade", "--format", "json"],
    ],
    ids=lambda words: " ".join(words[:2]),
)
def test_a_bucket_answers_as_a_folder(tracer, both, words):
    bucket, folder = (tracer(*words, "--lake", lake) for lake in both)
    assert bucket[0] == folder[0] == 0, bucket
    assert bucket[1].replace(both[0], "LAKE") == folder[1].replace(both[1], "LAKE")


def test_exports_and_pages_are_the_same(tracer, both, tmp_path):
    for lake, name in zip(both, ("bucket", "folder"), strict=True):
        options = ["--run", "one", "--lake", lake, "--output"]
        assert tracer("export", "--form", "interchange", *options, name)[0] == 0
        assert tracer("report", *options, f"{name}.html")[0] == 0
        assert (tmp_path / f"{name}.html").stat().st_size > 10_000
    files = sorted(path.name for path in (tmp_path / "folder").iterdir())
    assert files == sorted(path.name for path in (tmp_path / "bucket").iterdir())
    for name in files:
        if name.endswith(".parquet"):
            found = [pl.read_parquet(tmp_path / kind / name) for kind in ("bucket", "folder")]
            assert found[0].equals(found[1])


def test_small_files_are_merged_and_a_run_is_deleted(tracer, place):
    from tests.s3.test_s3_faults import BATCHES, assert_whole, write_run

    write_run(place)
    code, told, _ = tracer("compact", "--lake", place, "--keep-hours", 0, "--format", "json")
    assert code == 0
    found = json.loads(told)
    assert (found["files_before"], found["files_after"]) == (5 * BATCHES, 5), found
    assert_whole(place)
    storage = Lake.open(place).storage
    assert len(storage.names("routing/r/compacted")) == 1
    assert storage.names("routing/r") == []
    code, *_ = tracer("delete", "--run", "r", "--yes", "--keep-hours", 0, "--lake", place)
    assert code == 0
    assert storage.names("routing/r/compacted") == []
    assert Lake.open(place).runs() == []


def test_an_import_goes_on_where_it_stopped(tracer, files, place):
    words = ["import", *files, "--run-id", "one", "--lake", place]
    assert tracer(*words)[0] == 0
    assert tracer(*words)[0] == 0
    assert open_lake(place).sql("select count(*) from routing").fetchall() == [(18,)]


def test_python_reads_a_bucket(both):
    lakes = [open_lake(lake) for lake in both]
    frames = [
        lake.scan("routing").sort(pl.all().exclude("expert_ids", "gate_weights")) for lake in lakes
    ]
    assert frames[0].collect().equals(frames[1].collect())
    assert lakes[0].location == both[0]
    assert lakes[0].audit("one") == lakes[1].audit("one")
    assert pl.read_delta(f"{both[0]}/routing").height == 36


def test_sql_reaches_nothing_else(both, tracer):
    """Neither files of this machine nor other objects, nor what it reads the lake by."""
    for what in ("'/etc/hostname'", f"'{both[0]}/runs/*/*.parquet'", "'http://127.0.0.1/x'"):
        code, out, told = tracer("sql", f"select * from read_text({what})", "--lake", both[0])
        assert (code, out) == (2, ""), what
        assert told.startswith("Error: "), told


def test_views_can_be_printed(both, tracer):
    code, told, _ = tracer("sql", "--print-views", "--lake", both[0])
    assert code == 0
    assert f"read_parquet(['{both[0]}/routing/one/" in told
    assert duckdb.extract_statements(told)


def test_a_changed_object_is_found(both, tracer):
    storage = Lake.open(both[0]).storage
    (name, *_) = storage.names("routing/one")
    broken = bytearray(storage.read(name))
    broken[len(broken) // 2] ^= 1
    storage.write_file(name, lambda file: file.write(broken))
    code, told, _ = tracer("verify", "--lake", both[0], "--format", "json")
    assert code == 1
    assert name in told
    storage.remove(name)
    code, _, told = tracer("audit", "--run", "one", "--lake", both[0])
    assert code == 3
    assert "is gone" in told


def test_keys_are_written_nowhere(both, tracer, server):
    """Not in objects, whatever they hold, and not in what commands say."""
    storage = Lake.open(both[0]).storage
    import obstore

    names = [one["path"] for page in obstore.list(storage._store) for one in page]
    assert len(names) > 20
    for name in names:
        content = storage.read(name)
        assert SECRET.encode() not in content
        assert b"a-key" not in content
        assert server.encode() not in content
    for words in (["runs"], ["verify"], ["sql", "select * from runs"]):
        assert SECRET not in "".join(map(str, tracer(*words, "--lake", both[0])))


@pytest.mark.parametrize(
    ("changes", "lake", "words"),
    [
        ({}, "s3://no-such-bucket/lake", "bucket does not exist"),
        ({}, "s3://key:hidden@bucket/lake", "cannot be a lake"),
        ({}, "s3://key:hid/hidden@bucket/lake", "cannot be a lake"),
        ({}, "s3://bucket/lake?key=hidden", "cannot be a lake"),
        ({}, "https://key:hidden@host/lake", "neither a folder nor"),
        ({"AWS_ENDPOINT_URL": "http://me:hidden@127.0.0.1:9"}, None, "does not answer"),
        ({"AWS_S3_LOCKING_PROVIDER": "dynamodb"}, None, "AWS_S3_LOCKING_PROVIDER"),
        ({}, "s3:bucket/lake", "neither a folder nor an s3:// URL"),
        ({}, "s3://", "cannot be a lake"),
        ({}, "s3://lakes/../other", "cannot be a lake"),
        ({}, "s3://lakes/a?b", "cannot be a lake"),
        ({}, "gs://bucket/lake", "neither a folder nor an s3:// URL"),
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, None, "does not answer"),
        ({"AWS_ALLOW_HTTP": ""}, None, "AWS_ALLOW_HTTP=true"),
        ({"TRACER_S3_TIMEOUT": "soon"}, None, "TRACER_S3_TIMEOUT"),
        ({}, None, "is not a trace lake"),
    ],
)
def test_wrong_places_are_one_clear_error(tracer, place, monkeypatch, changes, lake, words):  # noqa: PLR0917
    monkeypatch.setattr("tracer.store.s3_storage._MOST_TRIES", 1)
    for name, value in changes.items():
        monkeypatch.setenv(name, value)
    code, out, told = tracer("runs", "--lake", lake or place)
    assert (code, out) == (2, "")
    lines = told.splitlines()
    assert [line.split(":")[0] for line in lines] in (["Error"], ["Error", "Hint"]), told
    assert words in told
    assert "hidden" not in told
