"""`tracer import` of what other recorders write, and of what `tracer export --form vllm` wrote."""

import json
import sys
import zipfile
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import zstandard

from tracer.store.lake import Lake

# Request -> expert ids [tokens][layers 1 and 3][2 of 4]; weights are 0.5 and 0.25 where there are.
CHOICES = {
    "a": [[[0, 1], [2, 3]], [[1, 2], [3, 0]], [[3, 1], [0, 2]]],
    "b": [[[2, 0], [1, 3]], [[0, 3], [1, 2]]],
}


@pytest.fixture
def rest(tmp_path):
    """requests.parquet and run.json of ``CHOICES``; changes go in by name."""

    def write(requests=None, run=None):
        described = {
            "request_id": ["a", "b"],
            "domain": ["law", "art"],
            "num_prompt_tokens": [3, 2],
            **(requests or {}),
        }
        pq.write_table(pa.table(described), tmp_path / "requests.parquet")
        facts = {"model": "m", "num_experts": 4, "top_k": 2, "moe_layers": [1, 3], **(run or {})}
        (tmp_path / "run.json").write_text(json.dumps(facts))
        return ["--requests", "requests.parquet", "--run", "run.json", "--run-id", "one"]

    return write


@pytest.fixture
def load(tracer, rest):
    """``load("jsonl", path, ...)`` imports into `lake`."""

    def call(form, path, **changes):
        return tracer("import", "--form", form, "--routing", path, *rest(**changes))

    return call


def stored():
    """{request: ids [tokens][layers][2]}, weights by (request, position, layer)."""
    rows = pl.read_delta("lake/routing").sort("request_id", "position", "layer_id").to_dicts()
    ids = {name: [[None, None] for _ in tokens] for name, tokens in CHOICES.items()}
    for row in rows:
        ids[row["request_id"]][row["position"]][[1, 3].index(row["layer_id"])] = row["expert_ids"]
    assert len(rows) == 10
    return ids, {tuple(row["gate_weights"]) for row in rows}


def tokens():
    frame = pl.read_delta("lake/tokens").sort("request_id", "position")
    return frame["token_id"].to_list()


def lines(**changes):
    for name, choices in CHOICES.items():
        for token, layers in enumerate(choices):
            for layer, ids in zip((1, 3), layers, strict=True):
                yield {
                    "req_id": name,
                    "token_idx": token,
                    "layer": layer,
                    "topk_ids": ids,
                    "topk_weights": [0.5, 0.25],
                    **changes,
                }


def text(**changes):
    return "\n".join(json.dumps(line) for line in reversed([*lines(**changes)]))


@pytest.mark.parametrize("packed", [False, True])
def test_json_lines_come_in_in_any_order(tracer, load, packed):
    path = Path("log.jsonl.zst" if packed else "log.jsonl")
    raw = f"\n{text()}\n\n".encode()
    path.write_bytes(zstandard.compress(raw) if packed else raw)
    told = load("jsonl", path)
    assert (told.exit_code, told.stdout) == (0, "run one: 2 requests, 10 routing rows\n")
    assert stored() == (CHOICES, {(0.5, 0.25)})
    assert tokens() == [-1] * 5
    assert tracer("verify").exit_code == 0
    assert load("jsonl", path).exit_code == 0
    assert stored() == (CHOICES, {(0.5, 0.25)})


def test_token_ids_of_requests_are_taken(load):
    Path("log.jsonl").write_text(text())
    told = load("jsonl", "log.jsonl", requests={"token_ids": [[5, 6, 7], [8, 9, 10]]})
    assert told.exit_code == 0, told
    assert tokens() == [5, 6, 7, 8, 9, 10]  # the last one of b was sampled and never run
    rows = pl.read_delta("lake/requests").sort("request_id")
    assert rows["num_generated_tokens"].to_list() == [0, 1]


@pytest.mark.parametrize(
    ("wrong", "exit_code", "words"),
    [
        ("[1", 2, "line 1: not JSON"),
        ("[" * 100_000, 2, "line 1: not JSON"),
        ("[1]", 2, "not a JSON object"),
        ('{"req_id": "a"}', 2, "lacks token_idx, layer"),
        ({"req_id": None}, 2, "req_id"),
        ({"req_id": "\ud800"}, 2, "req_id"),
        ({"token_idx": "0"}, 2, "token_idx"),
        ({"token_idx": True}, 2, "token_idx"),
        ({"token_idx": 10**30}, 3, "cannot be in this run"),
        ({"layer": 2}, 3, "layer 2 cannot"),
        ({"layer": 1}, 3, "each position from 0 once"),
        ({"topk_ids": [0, "1"]}, 2, "topk_ids"),
        ({"topk_ids": [0]}, 3, "1 ids and 2 weights"),
        ({"topk_ids": [0, 4]}, 3, "expert ids beyond 0 to 3"),
        ({"topk_ids": [1, 1]}, 3, "same expert twice"),
        ({"topk_weights": [0.5, None]}, 2, "topk_weights"),
        ({"topk_weights": [0.5, float("nan")]}, 3, "not a finite number"),
        ({"topk_weights": [0.5, 10**400]}, 3, "not a finite number"),
        ({"req_id": "c"}, 3, "routing has request 'c'"),
        ("", 3, "requests has request 'a'"),
    ],
)
def test_json_lines_that_do_not_fit_are_refused(load, wrong, exit_code, words):
    Path("log.jsonl").write_text(wrong if isinstance(wrong, str) else text(**wrong))
    load("jsonl", "log.jsonl").failed(exit_code, words)
    assert not Path("lake").exists()


def test_a_packed_file_that_is_damaged_is_refused(load):
    Path("log.jsonl.zst").write_bytes(zstandard.compress(text().encode())[:-9])
    load("jsonl", "log.jsonl.zst").failed(2, "log.jsonl.zst")
    load("jsonl", ".").failed(2, "is not a file")
    assert not Path("lake").exists()


def arrays(layers=(0, 1), width=2, dtype=np.uint8):
    """What vLLM returns: zeros in dense layers."""
    found = {}
    for name, choices in CHOICES.items():
        found[name] = np.zeros((len(choices), width, 2), dtype=dtype)
        found[name][:, list(layers)] = choices
    return found


@pytest.mark.parametrize(
    "made",
    [
        arrays(),
        arrays((1, 3), 4),
        arrays((1, 3), 6, np.int64),
        {name: np.asfortranarray(array) for name, array in arrays((1, 3), 4).items()},
    ],
    ids=["moe-layers", "every-layer", "more-layers", "by-column"],
)
def test_arrays_of_ids_come_in_with_weights_that_say_nothing(tracer, load, made):
    np.savez_compressed("ids.npz", **made)
    assert load("vllm", "ids.npz", run={"weight_convention": "scaled"}).exit_code == 0
    # Equal weights go by ascending id.
    assert stored() == (
        {name: np.sort(choices, axis=2).tolist() for name, choices in CHOICES.items()},
        {(0.5, 0.5)},
    )
    run = Lake.open("lake").run()
    assert run["weight_convention"] is None
    assert json.loads(run["options"]) == {"gate_weights": "unknown"}
    assert tracer("verify").exit_code == 0


def test_a_run_without_gate_weights_is_not_audited(tracer, load):
    np.savez("ids.npz", **arrays())
    assert load("vllm", "ids.npz").exit_code == 0
    for words in (["audit"], ["audit", "--mode", "reference"], ["report"]):
        tracer(*words).failed(2, "expert ids only", "tracer sql")
    assert tracer("export", "--output", "out").exit_code == 0
    words = [f"out/{name}" for name in ("routing.parquet", "requests.parquet", "run.json")]
    again = tracer(
        "import", "--routing", words[0], "--requests", words[1], "--run", words[2], "--lake", "new"
    )
    assert again.exit_code == 0, again
    tracer("audit", "--lake", "new").failed(2, "expert ids only")


class Evil:
    def __reduce__(self):
        return Path.touch, (Path("evil"),)


def npz(**entries):
    with zipfile.ZipFile("ids.npz", "w") as file:
        for name, raw in entries.items():
            file.writestr(f"{name}.npy", raw)


def npy(shape, raw, descr="|u1"):
    header = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + raw


@pytest.mark.parametrize(
    ("made", "exit_code", "words"),
    [
        ({"a": arrays()["a"]}, 3, "requests has request 'b'"),
        ({**arrays(), "c": arrays()["a"]}, 3, "request 'c', requests has not"),
        ({**arrays(), "a": np.zeros((3, 3, 2), np.uint8)}, 3, "shape (3, 3, 2)"),
        ({**arrays(), "a": np.zeros((3, 2, 4), np.uint8)}, 3, "top_k = 2"),
        ({**arrays(), "a": np.zeros((3, 2, 2))}, 2, "an array of float64"),
        ({**arrays(), "a": np.array([Evil()] * 3)}, 2, "an array of object"),
        ({**arrays(), "a": arrays()["a"] + 1}, 3, "expert ids beyond 0 to 3"),
        ({**arrays(), "a": np.zeros((3, 2, 2), np.uint8)}, 3, "same expert twice"),
        ({**arrays(), "a": arrays()["a"][:2]}, 3, "2 tokens and 3 prompt tokens"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(load, made, exit_code, words):
    np.savez("ids.npz", **made)
    load("vllm", "ids.npz").failed(exit_code, words)
    assert not Path("lake").exists()
    assert not Path("evil").exists()


def test_files_that_only_look_like_arrays_are_refused(load):
    Path("ids.npz").write_bytes(b"PK\x03\x04 but not really")
    load("vllm", "ids.npz").failed(2, "as an .npz file")
    np.save("ids.npy", arrays()["a"])
    load("vllm", "ids.npy").failed(2, "as an .npz file")
    for raw, exit_code, words in (
        (b"not numpy", 2, "as an .npz file"),
        (npy((2**24, 2, 2), b"\0" * 12), 3, "do not hold an array"),
        (npy((2**62, 2, 2), b"\0" * 12), 3, "shape"),
        (npy((3, 2, 2), b"\0" * 11), 3, "do not hold an array"),
        (npy("__import__('os')", b""), 2, "as an .npz file"),
        (npy((-3, 2, 2), b""), 3, "shape"),
        (npy((-3, -2, 2), b"\0" * 12), 3, "shape"),
    ):
        npz(a=raw, b=npy((2, 2, 2), bytes([0, 1, 2, 3] * 2)))
        load("vllm", "ids.npz").failed(exit_code, words)
    assert not Path("lake").exists()


def flame(folder="flame", layers=(1, 3), **changes):
    Path(folder).mkdir()
    for place, layer in enumerate(layers):
        ids = [token[place] for name in CHOICES for token in CHOICES[name]]
        columns = {
            "scores": pa.array([[0.5, 0.25]] * len(ids), pa.list_(pa.float16())),
            "indices": pa.array(ids, pa.list_(pa.int16())),
            **changes,
        }
        kept = {name: column for name, column in columns.items() if column is not None}
        pq.write_table(pa.table(kept), f"{folder}/layer_{layer:02d}.parquet")
    return folder


def test_a_folder_of_layers_comes_in_request_by_request(tracer, load):
    assert load("flame", flame()).exit_code == 0
    assert stored() == (CHOICES, {(0.5, 0.25)})
    assert tracer("verify").exit_code == 0
    assert tracer("audit").exit_code == 0


def test_layers_that_do_not_fit_are_refused(load):
    Path("empty").mkdir()
    load("flame", "empty").failed(2, "no file named like layer_02.parquet")
    load("flame", "run.json").failed(2, "is not a folder")
    load("flame", flame("one", (1,))).failed(3, "layers [1]")
    load("flame", flame("two", scores=None)).failed(2, "lacks the column scores")
    load("flame", flame("three", indices=[["x", "y"]] * 5)).failed(2, "indices is not")
    load("flame", flame("four", indices=[[0, 4]] * 5)).failed(3, "expert id 4")
    load("flame", flame("five", indices=[[0]] * 5)).failed(3, "top_k = 2")
    folder = flame("six")
    load("flame", folder, requests={"num_prompt_tokens": [3, 3]}).failed(3, "5 tokens")
    load("flame", folder, requests={"num_prompt_tokens": [6, -1]}).failed(3, "negative")
    (Path(folder) / "layer_003.parquet").write_bytes(b"")
    load("flame", folder).failed(2, "two files of layer 3")
    assert not Path("lake").exists()


TOKENS = {"a": [5, 6, 7], "b": [8, 9]}
# Physical experts: each logical one has a copy that stands 4 further on.
PHYSICAL = [[0, 1, 2, 3, 0, 1, 2, 3]] * 4


def sglang(path="rec.pt", *, last_map=None, **changes):
    """Both prompts in one pass, one decode pass behind it; b's experts are all copies."""
    ids = torch.full((4, 5, 8), -1, dtype=torch.int32)
    for place, layer in enumerate((1, 3)):
        both = [token[place] for token in CHOICES["a"]]
        both += [[one + 4 for one in token[place]] for token in CHOICES["b"]]
        ids[layer, :, :2] = torch.tensor(both)
    prefill = {
        "forward_pass_id": 1,
        "rank": 0,
        "input_ids": [5, 6, 7, 8, 9],
        "positions": [0, 1, 2, 0, 1],
        "extend_seq_lens": [3, 2],
        "forward_mode": 1,
        "topk_ids_of_layer": ids,
        "misc_objects": [],
        **changes,
    }
    decode = {**prefill, "input_ids": [1, 2], "extend_seq_lens": None, "forward_mode": 2}
    found = {
        "records": [prefill, decode],
        "last_physical_to_logical_map": torch.tensor(PHYSICAL) if last_map is None else last_map,
    }
    torch.save(found, path)
    return path


def test_prompts_of_a_recording_are_found_by_their_tokens(tracer, load):
    told = load("sglang", sglang(), requests={"token_ids": list(TOKENS.values())})
    assert told.exit_code == 0, told
    ids, weights = stored()
    assert ids == {name: np.sort(choices, axis=2).tolist() for name, choices in CHOICES.items()}
    assert weights == {(0.5, 0.5)}
    assert tokens() == [5, 6, 7, 8, 9]
    assert tracer("verify").exit_code == 0
    tracer("audit").failed(2, "expert ids only")


@pytest.mark.parametrize(
    ("changes", "exit_code", "words"),
    [
        ({"input_ids": [5, 6, 7, 8, 8]}, 3, "no request left with this prompt of 2 tokens"),
        ({"extend_seq_lens": [3, 1]}, 3, "do not fit together"),
        ({"extend_seq_lens": None}, 2, "extend_seq_lens"),
        ({"positions": [0, 1, 2, 3, 4]}, 2, "does not begin at position 0"),
        ({"positions": ["x"] * 5}, 2, "not whole numbers"),
        ({"forward_mode": 3}, 2, "mixes prompts and decoding"),
        ({"topk_ids_of_layer": torch.zeros(3, 5, 8, dtype=torch.int32)}, 3, "lack layers"),
        ({"topk_ids_of_layer": torch.zeros(4, 5, 8, dtype=torch.int32)}, 3, "more than top_k"),
        ({"topk_ids_of_layer": torch.full((4, 5, 8), -1)}, 3, "ids beyond 0 to 7"),
        ({"topk_ids_of_layer": torch.zeros(4, 4, 2, dtype=torch.int32)}, 3, "choices of 4"),
        ({"topk_ids_of_layer": torch.zeros(4, 5, 2, dtype=torch.int32)}, 3, "same expert twice"),
        ({"topk_ids_of_layer": torch.zeros(4, 5, 2)}, 2, "not whole numbers"),
        ({"topk_ids_of_layer": torch.zeros(4, 5, 2, dtype=torch.bfloat16)}, 2, "not numbers"),
        ({"last_map": torch.full((4, 8), 4)}, 3, "logical ids beyond 0 to 3"),
        ({"last_map": "x"}, 2, "last_physical_to_logical_map"),
    ],
)
def test_recordings_that_do_not_fit_are_refused(load, changes, exit_code, words):
    told = load("sglang", sglang(**changes), requests={"token_ids": list(TOKENS.values())})
    told.failed(exit_code, words)
    assert not Path("lake").exists()


def test_a_recording_never_runs_what_it_holds(load):
    known = {"token_ids": list(TOKENS.values())}
    torch.save({"records": [], "x": Evil()}, "evil.pt")
    load("sglang", "evil.pt", requests=known).failed(2, "as a .pt file")
    assert not Path("evil").exists()
    Path("junk.pt").write_bytes(b"junk")
    load("sglang", "junk.pt", requests=known).failed(2, "as a .pt file")
    torch.save({"logical_count": torch.zeros(1)}, "stat.pt")
    load("sglang", "stat.pt", requests=known).failed(2, "mode per_token")
    torch.save({"records": [7], "last_physical_to_logical_map": torch.tensor(PHYSICAL)}, "odd.pt")
    load("sglang", "odd.pt", requests=known).failed(2, "record 0: lacks")
    load("sglang", sglang()).failed(2, "names no requests", "token_ids")
    assert not Path("lake").exists()


def test_a_recording_without_torch_says_what_to_install(load, monkeypatch):
    path = sglang()
    monkeypatch.setitem(sys.modules, "torch", None)
    told = load("sglang", path, requests={"token_ids": list(TOKENS.values())})
    told.failed(2, "'torch' is not installed", "moe-tracer[")
