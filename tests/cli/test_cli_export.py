"""`tracer export`, and `tracer import` of what it wrote: the same rows come back."""

import csv
import json
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest

from tracer.store.lake import Lake
from tracer.store.run_writer import writing_run
from tracer.store.shard import ShardWriter
from tracer.store.shard_rows import ShardRows, TracedRequest

LAYERS = (0, 2)
RUN = {
    "run_id": "cap",
    "model": "m",
    "engine": "vllm",
    "num_experts": 6,
    "top_k": 2,
    "moe_layers": list(LAYERS),
    "weight_precision": "bf16",
    "weight_convention": "unscaled",
    "options": json.dumps({"temperature": 0.5, "top_k": 7}),
    "tracer_version": "0",
}
# Request -> domain, labels, prompt tokens, token ids; the last one is sampled and never run.
REQUESTS = {
    "q/1": ("law", {"subject": "tax"}, 2, [11, 12, 13, 14]),
    "q/2": ("art", {}, 3, [21, 22, 23, 24, 25]),
    "q3.npy": ("art", {"subject": "ink", "level": "2"}, 1, [31, 32]),
}


def expert_ids(request_id, layer):
    """[tokens with routing, 2]: made by hand so that no two rows of a request are alike."""
    number, count = list(REQUESTS).index(request_id), len(REQUESTS[request_id][3]) - 1
    first = [(number + layer + position) % 6 for position in range(count)]
    return np.array([[one, (one + 1 + layer) % 6] for one in first], dtype=np.int16)


def shard(names, layers):
    requests = [
        TracedRequest(name, domain, prompt, np.array(tokens, dtype=np.int32), len(tokens) - 1)
        for name, (domain, _, prompt, tokens) in ((name, REQUESTS[name]) for name in names)
    ]
    ids = np.concatenate(
        [np.stack([expert_ids(name, layer) for layer in layers], axis=1) for name in names]
    )
    return ShardRows(
        layers,
        requests,
        np.concatenate([np.arange(one.num_rows, dtype=np.int32) for one in requests]),
        ids,
        np.broadcast_to(np.array([0.625, 0.25], dtype=np.float32), ids.shape).copy(),
    )


def described(name, **changes):
    domain, labels, prompt, tokens = REQUESTS.get(name, ("law", {}, 2, [1, 2, 3]))
    return {
        "request_id": name,
        "sample_index": 0,
        "row_id": name,
        "domain": domain,
        "labels": labels,
        "status": "complete",
        "num_prompt_tokens": prompt,
        "num_generated_tokens": len(tokens) - prompt,
        "cached_prefix_tokens": 0,
        "finish_reason": "length",
        "prompt_digest": "",
        **changes,
    }


@pytest.fixture
def make_lake(tmp_path):
    """A capture of two batches by two pipeline stages, and a request that was given up."""

    def make(**changes):
        lake = Lake.create(tmp_path / "lake")
        with writing_run(lake, RUN) as target:
            writer = ShardWriter(lake.storage, "cap", 6, "bf16")
            for batch, names in enumerate((["q/1", "q3.npy"], ["q/2"])):
                shards = [
                    file
                    for rank, layer in enumerate(LAYERS)
                    for file in writer.write(f"{batch:06d}-pp{rank}", shard(names, (layer,)))
                    if rank == 0 or file.table != "tokens"
                ]
                rows = [described(name, **changes) for name in names]
                if batch:
                    rows.append(described("lost", status="aborted"))
                target.commit(batch, shards, rows)
        return lake

    return make


def rows_of(lake, table, *keys):
    frame = pl.read_delta(f"{lake}/{table}")
    return frame.drop(c for c in ("run_id", "shard") if c in frame.columns).sort(keys)


def test_a_capture_comes_back_from_the_interchange_form(tracer, make_lake):
    make_lake()
    told = tracer("export", "--output", "out", "--format", "json")
    assert told.exit_code == 0, told
    assert json.loads(told.stdout) == {
        "run_id": "cap",
        "run_status": "complete",
        "form": "interchange",
        "output": "out",
        "num_requests": 3,
        "num_requests_left_out": 1,
        "num_rows": (3 + 4 + 1) * 2,
    }
    assert sorted(path.name for path in Path("out").iterdir()) == [
        "requests.parquet",
        "routing.parquet",
        "run.json",
    ]
    again = tracer(
        "import", "--routing", "out/routing.parquet", "--requests", "out/requests.parquet",
        "--run", "out/run.json", "--lake", "new",
    )  # fmt: skip
    assert again.exit_code == 0, again
    for table, keys in (
        ("routing", ["request_id", "position", "layer_id"]),
        ("tokens", ["request_id", "position"]),
    ):
        assert rows_of("new", table, *keys).equals(rows_of("lake", table, *keys)), table
    kept = ["request_id", "domain", "labels", "num_prompt_tokens", "num_generated_tokens"]
    complete = pl.col("status") == "complete"
    ours, theirs = (
        [
            {**row, "labels": sorted(row["labels"].items())}
            for row in rows_of(lake, "requests", "request_id").filter(complete)[kept].to_dicts()
        ]
        for lake in ("lake", "new")
    )
    assert ours == theirs
    assert [row["labels"] for row in theirs] == [
        [("subject", "tax")],
        [],
        [("level", "2"), ("subject", "ink")],
    ]
    run = Lake.open("new").run()
    assert (run["run_id"], run["engine"], run["weight_convention"]) == ("cap", "vllm", "unscaled")
    assert json.loads(run["options"])["temperature"] == 0.5
    assert tracer("verify", "--lake", "new").exit_code == 0


def test_rows_are_written_as_they_are_described(tracer, make_lake):
    make_lake()
    assert tracer("export", "--output", "out").stdout == (
        "run cap (complete): 3 requests, 16 rows in out; 1 requests left out\n"
    )
    routing = pq.read_table("out/routing.parquet")
    assert str(routing.schema.remove_metadata()).splitlines() == [
        "request_id: string",
        "position: int32",
        "token_id: int32",
        "layer_id: int16",
        "expert_ids: list<element: int16>",
        "  child 0, element: int16",
        "gate_weights: list<element: float>",
        "  child 0, element: float",
    ]
    (row,) = [
        row
        for row in routing.to_pylist()
        if (row["request_id"], row["position"], row["layer_id"]) == ("q/2", 3, 2)
    ]
    assert row == {
        "request_id": "q/2",
        "position": 3,
        "token_id": 24,
        "layer_id": 2,
        "expert_ids": [0, 3],  # (1 + 2 + 3) % 6, and three further on
        "gate_weights": [0.625, 0.25],
    }


def test_what_is_there_is_left_alone_unless_forced(tracer, make_lake):
    make_lake()
    assert tracer("export", "--output", "out").exit_code == 0
    before = Path("out/routing.parquet").stat().st_ino
    tracer("export", "--output", "out").failed(2, "out exists", "--force")
    assert tracer("export", "--output", "out", "--force").exit_code == 0
    assert Path("out/routing.parquet").stat().st_ino != before
    Path("out/thesis.tex").write_text("mine")
    tracer("export", "--output", "out", "--force").failed(2, "also holds 'thesis.tex'")
    Path("file").write_text("mine")
    tracer("export", "--output", "file", "--force").failed(2, "file is not what")
    tracer("export", "--output", "file/below").failed(2, "cannot")
    assert Path("file").read_text() == "mine"
    assert sorted(path.name for path in Path().iterdir()) == ["file", "lake", "out"]


def test_a_broken_lake_leaves_nothing_behind(tracer, make_lake):
    make_lake()
    victim = max(Path("lake/routing/cap").glob("*.parquet"))
    victim.write_bytes(victim.read_bytes()[:-40])
    tracer("export", "--output", "out").failed(3, victim.name)
    assert sorted(path.name for path in Path().iterdir()) == ["lake"]


def test_runs_that_do_not_fit_are_refused(tracer, make_lake):
    tracer("export", "--output", "out").failed(2, "not a trace lake")
    make_lake(cached_prefix_tokens=1)
    tracer("export", "--output", "out").failed(2, "3 requests", "prefix cache", "'q/1'")
    tracer("export", "--output", "out", "--run", "nope").failed(2, "no run 'nope'")
    tracer("export").failed(2, "--output", "--help")
    assert not Path("out").exists()


def test_labels_that_cannot_be_columns_are_refused(tracer, make_lake):
    make_lake(labels={"domain": "x"})
    tracer("export", "--output", "out").failed(2, "the label 'domain'")
    assert not Path("out").exists()


def test_token_ids_that_are_not_those_of_the_rows_are_refused(tracer, interchange):
    for token_ids, exit_code, words in (
        ([[100, 101, 102], [100, 101, 7]], 3, "other token ids"),
        ([[100, 101], [100, 101, 102]], 3, "2 token ids and 3 tokens"),
        ([[100, 101, 102, 1, 2], [100, 101, 102]], 3, "5 token ids and 3 tokens"),
        ([[100, 101, None], [100, 101, 102]], 3, "empty entries"),
        ([["x"], ["y"]], 2, "token_ids is not"),
    ):
        told = tracer("import", *interchange(requests={"token_ids": token_ids}))
        told.failed(exit_code, words)
        assert not Path("lake").exists()


def test_arrays_of_ids_are_those_vllm_returns_and_come_back(tracer, make_lake):
    make_lake()
    told = tracer("export", "--form", "vllm", "--output", "out")
    assert told.exit_code == 0, told
    with np.load("out/routed_experts.npz", allow_pickle=False) as found:
        assert sorted(found.files) == sorted(REQUESTS)
        for name in REQUESTS:
            array = found[name]
            assert (array.dtype, array.shape) == (np.uint8, (len(REQUESTS[name][3]) - 1, 3, 2))
            assert (array[:, 0] == expert_ids(name, 0)).all()
            assert (array[:, 1] == 0).all()  # a dense layer
            assert (array[:, 2] == expert_ids(name, 2)).all()
    again = tracer(
        "import", "--form", "vllm", "--routing", "out/routed_experts.npz",
        "--requests", "out/requests.parquet", "--run", "out/run.json", "--lake", "new",
    )  # fmt: skip
    assert again.exit_code == 0, again
    keys = ["request_id", "position", "layer_id"]
    sets = pl.col("expert_ids").list.sort()
    ours, theirs = (
        rows_of(lake, "routing", *keys).with_columns(sets).drop("gate_weights")
        for lake in ("lake", "new")
    )
    assert ours.equals(theirs)
    tokens = ["request_id", "position"]
    assert rows_of("lake", "tokens", *tokens).equals(rows_of("new", "tokens", *tokens))
    assert tracer("verify", "--lake", "new").exit_code == 0


@pytest.mark.parametrize("form", ["interchange", "vllm"])
def test_a_compacted_run_is_written_alike(tracer, make_lake, form):
    make_lake()
    assert tracer("export", "--form", form, "--output", "before").exit_code == 0
    assert tracer("compact").exit_code == 0
    assert tracer("export", "--form", form, "--output", "after").exit_code == 0
    if form == "vllm":
        before, after = (np.load(f"{name}/routed_experts.npz") for name in ("before", "after"))
        assert all((before[name] == after[name]).all() for name in REQUESTS)
    else:
        keys = ["request_id", "position", "layer_id"]
        before, after = (
            pl.read_parquet(f"{name}/routing.parquet").sort(keys) for name in ("before", "after")
        )
        assert before.equals(after)


@pytest.mark.parametrize("case", ["olmoe_like", "presence_half"])
def test_the_authors_table_is_written_as_they_have_it(tracer, repository, case):
    folder = repository / "tests" / "golden" / case
    told = tracer(
        "import", "--routing", folder / "routing.parquet", "--run", folder / "run.json",
        "--requests", folder / "requests.parquet",
    )  # fmt: skip
    assert told.exit_code == 0, told
    told = tracer("export", "--form", "topk", "--output", "topk.csv", "--format", "json")
    expected = list(csv.DictReader((folder / "expected_topk_table.csv").read_text().splitlines()))
    assert json.loads(told.stdout)["num_rows"] == len(expected)
    found = list(csv.DictReader(Path("topk.csv").read_text().splitlines()))
    assert list(found[0]) == list(expected[0])
    for ours, theirs in zip(found, expected, strict=True):
        for column in ("domain", "idx", "topk_indices"):
            assert ours[column] == theirs[column]
        values = [json.loads(f"[{row['topk_values']}]") for row in (ours, theirs)]
        assert values[0] == pytest.approx(values[1], abs=1.01e-4)
        assert float(ours["topk_mean"]) == pytest.approx(float(theirs["topk_mean"]), abs=1e-4)


def test_a_table_is_not_written_over_unless_forced(tracer, make_lake):
    make_lake()
    Path("topk.csv").write_text("mine")
    words = ["export", "--form", "topk", "--output", "topk.csv"]
    tracer(*words).failed(2, "topk.csv exists", "--force")
    tracer("export", "--form", "topk", "--output", "lake", "--force").failed(2, "lake is not what")
    assert tracer(*words, "--force").exit_code == 0
    # The last prompt token of q/2 chooses 3 and 4 in layer 0, that of q3.npy 2 and 3: one weight
    # of 0.625 and one of 0.25 each. Expert 3: W = 0.625, 0.25, so the mean of (W - 0.25) / 0.375
    # is 1/2, times 2 choices of 2. Expert 2: W = 0, 0.625: 1/2, times 1/2; so expert 4.
    assert Path("topk.csv").read_text().splitlines()[:2] == [
        "domain,idx,topk_mean,topk_values,topk_indices",
        'art,0,0.375,"0.5, 0.25","3, 2"',
    ]
