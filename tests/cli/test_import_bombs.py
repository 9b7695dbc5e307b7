"""Small files that unpack to gigabytes, or say so: refused at once, in little memory.

Each file here takes more than ``ROOM`` to whoever unpacks it first and looks then.
"""

import gc
import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import zstandard

from tracer.store.thrift import binary, i32, i64, listed, struct

BILLION = 1_000_000_000
# How far the resident memory of the process may rise, libraries that load first among it.
ROOM = 300_000_000

# An import that may map 6 GB, libraries and all; what `test_a_billion_equal_rows` asks takes 16.
LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (6_000_000_000,) * 2)
from tracer.cli import run
sys.exit(run(sys.argv[1:]))
"""


def kilobytes(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1])


@pytest.fixture
def refused(tracer):
    """Runs an import that is to fail with these words, and compares its peak with ``ROOM``."""

    def check(form, path, *words, more=()):
        gc.collect()
        pa.default_memory_pool().release_unused()  # what making the file took
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins again
        before = kilobytes("VmRSS")
        told = tracer(*command(form, path), *more)
        rise = (kilobytes("VmHWM") - before) * 1024
        told.failed(told.exit_code, *words)
        assert told.exit_code in (2, 3)
        assert rise < ROOM, f"{rise:,} bytes"
        assert not Path("lake").exists()

    return check


def command(form, path):
    words = ["import", "--form", form, "--routing", path, "--requests", "requests.parquet"]
    return [*words, "--run", "run.json", "--lake", "lake"]


@pytest.fixture
def rest(tracer):
    """Writes requests.parquet and run.json; columns go in by name."""

    def write(**columns):
        described = {"request_id": ["a"], "domain": ["x"], "num_prompt_tokens": [1], **columns}
        pq.write_table(pa.table(described), "requests.parquet")
        facts = {"model": "m", "num_experts": 4, "top_k": 2, "moe_layers": [1]}
        Path("run.json").write_text(json.dumps(facts))

    write()
    return write


def routing(count=1, **changes):
    return pa.table(
        {
            "request_id": ["a"] * count,
            "position": pa.array(np.zeros(count, np.int32)),
            "token_id": pa.array(np.zeros(count, np.int32)),
            "layer_id": pa.array(np.ones(count, np.int16)),
            "expert_ids": pa.array([[0, 1]] * count, pa.list_(pa.int16())),
            "gate_weights": pa.array([[0.5, 0.5]] * count, pa.list_(pa.float32())),
            **changes,
        }
    )


def varint(number):
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def equal_values(path, values, rows, *, claimed=None, raw=0):
    """Columns of requests.parquet, each a dictionary of one text and ``values`` times that.

    ``claimed``: the values by the footer; ``raw``: bytes that the page has with zeros behind it.
    """
    entry = (1).to_bytes(4, "little") + b"a"
    page = (
        bytes([1]) + varint(values << 1) + bytes(max(1, raw - 1 - len(varint(values << 1))))
    )  # bit width 1, one run, its value

    def header(kind, content, number, facts):
        packed = zstandard.compress(content)
        fields = {1: i32(kind), 2: i32(len(content)), 3: i32(len(packed)), number: facts}
        return struct(fields)[1] + packed

    plain = struct({1: i32(1), 2: i32(0)})
    data = struct({1: i32(values), 2: i32(8), 3: i32(3), 4: i32(3)})
    first = header(2, entry, 7, plain)
    body = first + header(0, page, 5, data)
    names = ["request_id", "domain", "num_prompt_tokens"]
    chunks = []
    whole = b"PAR1"
    for name in names:
        at = len(whole)
        whole += body
        facts = struct(
            {1: i32(6), 2: listed([i32(8)]), 3: listed([binary(name)]), 4: i32(6),
             5: i64(claimed or values), 6: i64(len(body)), 7: i64(len(body)),
             9: i64(at + len(first)), 11: i64(at)}
        )  # fmt: skip
        chunks.append(struct({2: i64(0), 3: facts}))
    group = struct({1: listed(chunks), 2: i64(3 * len(body)), 3: i64(rows)})
    leaves = [struct({1: i32(6), 3: i32(0), 4: binary(name), 6: i32(0)}) for name in names]
    root = struct({4: binary("schema"), 5: i32(3)})
    footer = struct({1: i32(1), 2: listed([root, *leaves]), 3: i64(rows), 4: listed([group])})[1]
    path.write_bytes(whole + footer + len(footer).to_bytes(4, "little") + b"PAR1")


def test_a_billion_equal_rows_in_a_few_bytes(rest, refused):
    pq.write_table(routing(), "r.parquet")
    equal_values(Path("requests.parquet"), BILLION, BILLION)
    assert pq.read_metadata("requests.parquet").num_rows == BILLION
    assert Path("requests.parquet").stat().st_size < 1000
    refused("interchange", "r.parquet", "requests.parquet", "unpacks to too much")
    told = subprocess.run(
        [sys.executable, "-c", LIMITED, *command("interchange", "r.parquet")],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert told.returncode == 2
    assert "requests.parquet unpacks to too much" in told.stderr
    assert not Path("lake").exists()


@pytest.mark.parametrize(("values", "claimed"), [(3, 2**38), (2**30, 3)])
def test_a_footer_that_lies(rest, refused, values, claimed):
    """More rows than there are would be made room for; fewer would hide what there is."""
    pq.write_table(routing(), "r.parquet")
    equal_values(Path("requests.parquet"), values, claimed, claimed=claimed)
    words = f"{claimed:,} values by the footer, its pages {values:,}"
    refused("interchange", "r.parquet", words, more=("--max-gb", "1000000"))


def test_a_page_that_unpacks_to_half_a_gigabyte(rest, refused):
    pq.write_table(routing(), "r.parquet")
    equal_values(Path("requests.parquet"), 3, 3, raw=2**29)
    assert Path("requests.parquet").stat().st_size < 200_000
    words = "a page of column request_id unpacks to 536,870,912 bytes"
    refused("interchange", "r.parquet", words, more=("--max-gb", "1000"))


def test_a_long_text_that_stands_a_million_times(rest, refused):
    """A dictionary has it once, decoded it is 20 GB."""
    name = "n" * 100_000
    names = pa.DictionaryArray.from_arrays(np.zeros(200_000, np.int32), [name])
    columns = {"request_id": names, "expert_ids": pa.array([[0, 1]] * 200_000, pa.list_(pa.int8()))}
    pq.write_table(routing(200_000, **columns), "r.parquet", store_schema=False)
    assert Path("r.parquet").stat().st_size < 1_000_000
    refused("interchange", "r.parquet", "r.parquet", "unpacks to too much")


def test_lists_that_are_longer_than_any_choice(rest, refused):
    """One row of 30 million equal ids, twenty kilobytes."""
    ids = pa.ListArray.from_arrays([0, 30_000_000], pa.array(np.zeros(30_000_000, np.int16)))
    pq.write_table(routing(expert_ids=ids), "r.parquet")
    refused("interchange", "r.parquet", "unpacks to", more=("--max-gb", "0.2"))


def test_lines_that_unpack_to_gigabytes(rest, refused):
    packer = zstandard.ZstdCompressor().compressobj()
    giant = b"".join(packer.compress(b"1" * 2**20) for _ in range(600)) + packer.flush()
    Path("giant.jsonl.zst").write_bytes(giant)
    assert len(giant) < 1_000_000
    refused("jsonl", "giant.jsonl.zst", "line 1: longer than 1048576 bytes")
    Path("empty.jsonl.zst").write_bytes(zstandard.compress(b"\n" * 100_000_000))
    refused("jsonl", "empty.jsonl.zst", "unpacks to too much",
            more=("--max-gb", "0.02"))  # fmt: skip


def test_many_sound_lines_beyond_the_limit(rest, refused):
    line = json.dumps({"req_id": "a", "token_idx": 0, "layer": 1, "topk_ids": [0, 1],
                       "topk_weights": [0.5, 0.5]}).encode()  # fmt: skip
    Path("log.jsonl.zst").write_bytes(zstandard.compress((line + b"\n") * 200_000))
    refused("jsonl", "log.jsonl.zst", "unpacks to too much", more=("--max-gb", "0.01"))


def npy_header(shape, descr="|u1", version=1, length=None):
    text = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    size = len(text) if length is None else length
    return b"\x93NUMPY" + bytes([version, 0]) + size.to_bytes(2 * version, "little") + text


def zeros_zip(path, head, count, kind=zipfile.ZIP_DEFLATED):
    with (
        zipfile.ZipFile(path, "w", kind, compresslevel=1) as file,
        file.open("a.npy", "w", force_zip64=True) as entry,
    ):
        entry.write(head)
        for _ in range(count // 2**20):
            entry.write(bytes(2**20))


@pytest.mark.parametrize(
    ("made", "words"),
    [
        ((npy_header((2**28, 1, 2)), 2**29, zipfile.ZIP_DEFLATED), "unpacks to too much"),
        ((npy_header((4,), version=2, length=2**30), 2**29, zipfile.ZIP_DEFLATED), "npz"),
        ((npy_header((2**20, 1, 2)), 2**21, zipfile.ZIP_BZIP2), "packed in a way"),
        ((npy_header((2**40, 1, 2)), 0, zipfile.ZIP_DEFLATED), "shape"),
    ],
    ids=["zeros", "header", "bzip2", "shape"],
)
def test_archives_of_arrays(rest, refused, made, words):
    head, count, kind = made
    zeros_zip("ids.npz", head, count, kind)
    assert Path("ids.npz").stat().st_size < 4_000_000
    more = ("--max-gb", "0.5") if words == "unpacks to too much" else ()
    refused("vllm", "ids.npz", words, more=more)


def test_an_array_is_counted_as_the_rows_it_becomes(rest, refused):
    """A byte for an id is no row: with its text, lists and weights it takes twenty times that."""
    zeros_zip("ids.npz", npy_header((2**23, 1, 2)), 2**24)
    refused("vllm", "ids.npz", "unpacks to too much", more=("--max-gb", "0.2"))


def test_a_stream_of_tokens_that_only_requests_knows_of(rest, refused):
    rest(num_prompt_tokens=[2**31 - 1])
    Path("flame").mkdir()
    lists = {"indices": [[0, 1]], "scores": [[0.5, 0.5]]}
    pq.write_table(pa.table(lists), "flame/layer_01.parquet")
    refused("flame", "flame", "unpacks to too much")


class Bytes:
    """A call that torch allows and that makes memory of a number."""

    def __reduce__(self):
        return bytearray, (2**31,)


@pytest.mark.parametrize("kind", ["view", "packed", "call", "lists"])
def test_recordings_that_unpack_to_gigabytes(rest, refused, kind):
    rest(token_ids=[[5]])
    ids = torch.zeros(1, 1, 1, dtype=torch.int32)
    found = {"records": [], "last_physical_to_logical_map": ids[0]}
    if kind == "view":
        found["last_physical_to_logical_map"] = ids[0].expand(2**20, 2**10)
    if kind == "lists":
        found["last_physical_to_logical_map"] = [[0] * 2**14] * 2**13
    if kind == "call":
        found["more"] = Bytes()
    torch.save(found, "rec.pt")
    words = {"view": "too many numbers", "lists": "too many numbers", "packed": "is packed",
             "call": "bytearray"}[kind]  # fmt: skip
    if kind == "packed":
        again = io.BytesIO(Path("rec.pt").read_bytes())
        with (
            zipfile.ZipFile(again) as old,
            zipfile.ZipFile("rec.pt", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as new,
        ):
            for name in old.namelist():
                new.writestr(name, old.read(name))
            new.writestr(f"{old.namelist()[0].split('/')[0]}/data/9", bytes(2**29))
    refused("sglang", "rec.pt", words, more=("--max-gb", "0.5"))


def test_facts_of_a_run_are_no_gigabytes(rest, refused):
    pq.write_table(routing(), "r.parquet")
    Path("run.json").write_bytes(b"[" + b"1," * 3_000_000)
    refused("interchange", "r.parquet", "run.json", "longer than")


def test_max_gb_lets_more_in(tracer, rest):
    pq.write_table(routing(), "r.parquet")
    words = command("interchange", "r.parquet")
    tracer(*words, "--max-gb", "0.000001").failed(2, "unpacks to too much", "--max-gb")
    assert tracer(*words, "--max-gb", "0.01").exit_code == 0
