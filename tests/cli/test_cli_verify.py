"""`tracer verify`: each kind of damage is made first, then it must be found and named."""

import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake

from tests.store.conftest import make_rows, request_row, run_row, together
from tracer.schema import arrow_schema
from tracer.store import commit
from tracer.store.lake import Lake
from tracer.store.run_writer import writing_run
from tracer.store.shard import ShardWriter


@pytest.fixture
def lake(tmp_path):
    """Run a: requests q0 and q1 in one batch, q2 in another; 3 rows in each of the layers 0, 2."""
    lake = Lake.create(tmp_path / "lake")
    writer = ShardWriter(lake.storage, "a", num_experts=4, precision="f32")
    with writing_run(lake, run_row("a")) as target:
        for batch, names in enumerate((["q0", "q1"], ["q2"])):
            files = writer.write(f"{batch:06d}-w0", together(*(make_rows(name) for name in names)))
            target.commit(batch, files, [request_row(name) for name in names])
    return lake


@pytest.fixture
def verify(tracer, lake):
    """Runs it; returns (exit code, faults, what was repaired)."""

    def call(*words):
        told = tracer("verify", "--lake", lake.location, "--format", "json", *words)
        found = json.loads(told.stdout)
        return told.exit_code, found["faults"], found["repaired"]

    return call


def only_file(lake, table, batch):
    (path,) = (Path(lake.location) / table / "a").glob(f"{batch:06d}*.parquet")
    return path


def change(lake, table, name, function):
    """Rewrite a column as a writer with a fault would have written it; ``function`` of the row."""
    rows = DeltaTable(str(Path(lake.location) / table)).to_pyarrow_table().to_pylist()
    for row in rows:
        row[name] = function(row)
    new = pa.Table.from_pylist(rows, schema=arrow_schema(table))
    write_deltalake(str(Path(lake.location) / table), new, mode="overwrite")


def keep(lake, table, wanted):
    """Rewrite a table with the rows for which ``wanted`` says how often."""
    rows = DeltaTable(str(Path(lake.location) / table)).to_pyarrow_table().to_pylist()
    kept = [row for row in rows for _ in range(wanted(row))]
    new = pa.Table.from_pylist(kept, schema=arrow_schema(table))
    write_deltalake(str(Path(lake.location) / table), new, mode="overwrite")


def told(faults, *keys):
    return [tuple(fault[key] for key in keys) for fault in faults]


def test_a_sound_lake_has_no_faults(lake, tracer, verify):
    assert verify() == (0, [], [])
    shown = tracer("verify", "--lake", lake.location)
    assert shown.exit_code == 0
    # routing, tokens, usage, usage_by_domain and requests twice; runs: its last row
    assert shown.stdout == "11 files and the rows of 1 run checked: no faults\n"


def test_an_empty_lake_has_no_faults(tracer, tmp_path):
    Lake.create(tmp_path / "lake")
    shown = tracer("verify", "--lake", tmp_path / "lake")
    assert (shown.exit_code, shown.stdout) == (
        0,
        "0 files and the rows of 0 runs checked: no faults\n",
    )


@pytest.mark.parametrize("table", ["routing", "tokens", "usage", "usage_by_domain", "requests"])
def test_every_flipped_byte_is_found(lake, verify, table):
    """At the beginning, in the middle and in the footer of a file."""
    path = only_file(lake, table, 0)
    sound = path.read_bytes()
    for at in (5, len(sound) // 2, len(sound) - 20):
        broken = bytearray(sound)
        broken[at] ^= 0x10
        path.write_bytes(broken)
        code, faults, _ = verify()
        assert code == 1
        assert told(faults, "check", "run_id", "path", "detail")[0] == (
            "files", "a", f"{table}/a/{path.name}", "holds other bytes than were committed",
        )  # fmt: skip


def test_a_truncated_file_is_found_and_its_requests_are_named(lake, verify):
    path = only_file(lake, "routing", 0)
    size = path.stat().st_size
    with path.open("rb+") as file:
        file.truncate(size - 7)
    code, faults, _ = verify()
    assert code == 1
    assert told(faults, "path", "detail")[0] == (
        f"routing/a/{path.name}",
        f"has {size - 7:,} bytes where {size:,} were committed",
    )
    assert {fault["request_id"] for fault in faults if fault["check"] == "counts"} == {"q0", "q1"}


def test_a_deleted_file_is_found_and_its_requests_are_named(lake, verify):
    path = only_file(lake, "routing", 1)
    path.unlink()
    code, faults, _ = verify()
    assert code == 1
    assert told(faults, "check", "path", "request_id", "layer_id", "detail")[:2] == [
        ("files", f"routing/a/{path.name}", None, None, "is gone"),
        (
            "counts",
            None,
            "q2",
            None,
            "0 rows of routing where 3 tokens were routed, in every layer",
        ),
    ]


def test_a_link_in_place_of_a_file_is_found(lake, verify, tmp_path):
    path = only_file(lake, "routing", 0)
    elsewhere = tmp_path / "elsewhere.parquet"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)
    _, faults, _ = verify()
    assert told(faults, "path", "detail")[0] == (f"routing/a/{path.name}", "is a link, not a file")


def test_a_file_of_another_schema_is_found(lake, verify):
    """Of the same size and without a digest, as in a lake that an older version wrote."""
    path = only_file(lake, "tokens", 1)
    table = pq.read_table(path)
    position = table.column_names.index("position")
    wide = table.set_column(position, "position", table["position"].cast(pa.int64()))
    pq.write_table(wide, path)
    log = max((Path(lake.location) / "tokens" / "_delta_log").glob("*.json"))
    entries = [json.loads(line) for line in log.read_text().splitlines()]
    for entry in entries:
        if "add" in entry:
            entry["add"]["size"] = path.stat().st_size
    log.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    for manifest in (Path(lake.location) / "_tracer" / "committed").rglob("*.json"):
        manifest.unlink()
    _, faults, _ = verify()
    assert told(faults, "path", "detail")[0] == (
        f"tokens/a/{path.name}", "has another schema: position is int64",
    )  # fmt: skip


def test_a_table_without_its_log_is_found(lake, verify):
    for path in (Path(lake.location) / "usage" / "_delta_log").iterdir():
        path.unlink()
    code, faults, _ = verify()
    assert code == 1
    assert faults[0]["path"] == "usage"
    assert "cannot be read" in faults[0]["detail"]


def test_a_missing_request_is_found(lake, verify):
    """`requests` names it, and a request that it does not name has rows."""
    keep(lake, "routing", lambda row: row["request_id"] != "q1")
    _, faults, _ = verify()
    assert told(faults, "check", "request_id", "layer_id", "detail")[0] == (
        "counts", "q1", None, "0 rows of routing where 3 tokens were routed, in every layer",
    )  # fmt: skip
    keep(lake, "requests", lambda row: row["request_id"] != "q2")
    _, faults, _ = verify()
    assert (
        "strangers", "q2", 0, "3 rows of routing of a request that requests does not call complete",
    ) in told(faults, "check", "request_id", "layer_id", "detail")  # fmt: skip


def test_a_wrong_count_is_found_with_its_layer_and_file(lake, verify):
    keep(
        lake,
        "routing",
        lambda row: (row["request_id"], row["layer_id"], row["position"]) != ("q0", 2, 1),
    )
    _, faults, _ = verify()
    (file,) = DeltaTable(str(Path(lake.location) / "routing")).file_uris()
    assert told(faults, "check", "path", "request_id", "layer_id", "detail")[0] == (
        "counts",
        str(file).removeprefix(f"{lake.location}/"),
        "q0",
        2,
        "2 rows of routing where 3 tokens were routed, in layer 2",
    )


def test_a_key_that_occurs_twice_is_found(lake, verify):
    keep(
        lake,
        "routing",
        lambda row: 1 + ((row["request_id"], row["layer_id"], row["position"]) == ("q2", 0, 2)),
    )
    _, faults, _ = verify()
    assert ("duplicates", "q2", 0, "1 positions twice in routing") in told(
        faults, "check", "request_id", "layer_id", "detail"
    )


def test_a_request_that_is_described_twice_is_found(lake, verify):
    keep(lake, "requests", lambda row: 1 + (row["request_id"] == "q1"))
    _, faults, _ = verify()
    assert told(faults, "check", "request_id", "detail")[0] == (
        "requests", "q1", "2 rows in requests",
    )  # fmt: skip


def at_first(value):
    """Of q1, the first token in layer 0 gets ``value``; every other row stays."""

    def function(row, name):
        hit = (row["request_id"], row["layer_id"], row["position"]) == ("q1", 0, 0)
        return value if hit else row[name]

    return function


@pytest.mark.parametrize(
    ("name", "value", "detail"),
    [
        ("expert_ids", [3, 4], "expert 4 of 4 at position 0"),
        ("expert_ids", [3, -1], "expert -1 at position 0"),
        ("expert_ids", [3, 3], "an expert twice at position 0"),
        ("expert_ids", [3], "1 experts and 2 weights where top-k is 2 at position 0"),
        ("gate_weights", [0.25, 0.5], "weights that do not descend at position 0"),
        ("gate_weights", [0.5, float("nan")], "a weight that is not finite at position 0"),
        ("gate_weights", [float("inf"), 0.5], "a weight that is not finite at position 0"),
        (
            "gate_weights",
            [float("inf"), float("-inf")],
            "a weight that is not finite at position 0",
        ),
    ],
)
def test_a_choice_that_no_router_made_is_found(lake, verify, name, value, detail):
    change(lake, "routing", name, lambda row: at_first(value)(row, name))
    code, faults, _ = verify()
    assert code == 1
    assert ("choices", "q1", 0, detail) in told(faults, "check", "request_id", "layer_id", "detail")


def test_sums_that_disagree_with_the_rows_are_found(lake, verify):
    """One count of q0 in layer 2, and with it one of its domain."""

    def more(row):
        hit = (row["request_id"], row["layer_id"], row["phase"]) == ("q0", 2, "prompt")
        first, *rest = row["num_choices"]
        return [first + hit, *rest]

    change(lake, "usage", "num_choices", more)
    _, faults, _ = verify()
    assert told(faults, "check", "request_id", "layer_id", "detail") == [
        ("usage", "q0", 2, "1 sums of usage differ from the rows"),
        ("usage_by_domain", None, 2, "1 sums of domain law differ from usage"),
    ]


def test_tokens_that_are_not_the_request_s_are_found(lake, verify):
    keep(lake, "tokens", lambda row: (row["request_id"], row["position"]) != ("q0", 3))
    change(
        lake,
        "tokens",
        "phase",
        lambda row: "prompt" if row["request_id"] == "q2" else row["phase"],
    )
    _, faults, _ = verify()
    assert told(faults, "check", "request_id", "detail") == [
        ("tokens", "q0", "3 rows of tokens, 2 of the prompt, where requests says 4 and 2"),
        ("tokens", "q2", "4 rows of tokens, 4 of the prompt, where requests says 4 and 2"),
    ]


def test_what_a_crash_left_is_cleared_away_by_repair_and_nothing_else_is(lake, verify, monkeypatch):
    """A batch that was staged and not committed, a torn file; a broken file stays broken."""
    writer = ShardWriter(lake.storage, "a", num_experts=4, precision="f32")
    files = writer.write("000002-w0", make_rows("q3"))
    requests = commit.write_requests(lake, "a", 2, [{"run_id": "a", **request_row("q3")}])
    commit.stage_batch(lake.storage, "a", 2, [*files, requests])
    torn = Path(lake.location) / "routing" / "a" / ".000003-w0.1.tmp"
    torn.write_bytes(b"PAR1")
    broken = only_file(lake, "usage", 0)
    broken.write_bytes(broken.read_bytes()[:-1])

    code, faults, _ = verify()
    assert code == 1
    left = [fault["path"] for fault in faults if fault["check"] == "leftovers"]
    assert "_tracer/staged/a/000002.json" in left
    assert "routing/a/.000003-w0.1.tmp" in left

    code, faults, repaired = verify("--repair")
    assert code == 1
    assert [fault["path"] for fault in faults if fault["check"] == "files"] == [
        f"usage/a/{broken.name}"
    ]
    assert not any(fault["check"] == "leftovers" for fault in faults)
    assert "run a: committed _tracer/staged/a/000002.json, a staged batch" in repaired
    assert "run a: removed routing/a/.000003-w0.1.tmp, a file no table names" in repaired
    assert not torn.exists()
    assert broken.exists()
    assert lake.request_status("a")["q3"] == "complete"


def test_repair_leaves_a_run_alone_that_is_being_written(lake, verify):
    torn = Path(lake.location) / "routing" / "a" / ".000003-w0.1.tmp"
    torn.write_bytes(b"PAR1")
    with lake.writing("a"):
        _, _, repaired = verify("--repair")
    assert repaired == ["run a is being written: left alone"]
    assert torn.exists()


def test_what_a_lake_names_outside_itself_is_refused(lake, tracer):
    """Its log leads to another file: no command reads it."""
    secret = Path(lake.location).parent / "secret.parquet"
    os.link(only_file(lake, "routing", 0), secret)
    log = max((Path(lake.location) / "routing" / "_delta_log").glob("*.json"))
    log.write_text(log.read_text().replace("a/000001-w0.parquet", "../../secret.parquet"))
    for words in (["verify"], ["audit"], ["sql", "select count(*) from routing"]):
        shown = tracer(*words, "--lake", lake.location)
        assert shown.exit_code in (1, 3), words
        assert "outside its folder" in shown.stdout + shown.stderr


def test_wrong_input(tracer, lake, tmp_path):
    assert tracer("verify", "--lake", tmp_path / "none").failed(2, "not a trace lake")
    assert tracer("verify", "--lake", lake.location, "--run", "b").failed(2, "no run 'b'")
