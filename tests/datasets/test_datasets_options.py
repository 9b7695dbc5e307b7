"""Names, limits, digests and options that do not fit."""

import hashlib
import json
from pathlib import Path

import pytest

from tracer.datasets import DatasetOptions, load_dataset, loader
from tracer.errors import DatasetError, InputError
from tracer.records import DatasetRow


def write(tmp_path, records, name="some.jsonl"):
    path = tmp_path / name
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


def ids(name, **options):
    return [row.row_id for row in load_dataset(name, DatasetOptions(**options)).rows]


def by_domain(tmp_path):
    pairs = [("b", "b0"), ("b", "b1"), ("a", "a0"), ("c", "c0"), ("b", "b2"), ("a", "a1")]
    return write(tmp_path, [{"id": i, "prompt": i, "domain": d} for d, i in pairs])


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        (1, ["a0"]),
        (2, ["a0", "b0"]),
        (4, ["a0", "b0", "c0", "a1"]),
        (6, ["a0", "b0", "c0", "a1", "b1", "b2"]),
        (99, ["a0", "b0", "c0", "a1", "b1", "b2"]),
        (None, ["b0", "b1", "a0", "c0", "b2", "a1"]),
    ],
)
def test_limit_takes_from_each_domain_in_turn(tmp_path, limit, expected):
    assert ids(by_domain(tmp_path), limit=limit) == expected


def test_limit_goes_by_subject_where_there_is_one(tmp_path):
    records = [
        {"id": "1", "prompt": "x", "domain": "a", "subject": "z"},
        {"id": "2", "prompt": "x", "domain": "a", "subject": "z"},
        {"id": "3", "prompt": "x", "domain": "b", "subject": "y"},
        {"id": "4", "prompt": "x", "domain": "yy"},
    ]
    # Groups in order: subject y, domain yy, subject z.
    assert ids(write(tmp_path, records), limit=4) == ["3", "4", "1", "2"]


def test_without_domains_limit_takes_the_first_rows(tmp_path):
    records = [{"prompt": text} for text in "xyz"]
    assert ids(write(tmp_path, records), limit=2) == ["0", "1"]


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_below_one_is_refused(limit):
    with pytest.raises(InputError, match=f"limit of {limit} rows"):
        load_dataset("demo", DatasetOptions(limit=limit))


def digest(tmp_path, *pairs):
    path = write(tmp_path, [{"id": i, "prompt": p} for i, p in pairs])
    return load_dataset(path, DatasetOptions()).digest


def test_the_digest_is_sha256_over_length_prefixed_texts(tmp_path):
    # 8 bytes of length, big-endian, before each text; "é" is two bytes.
    # Without a domain and labels a row ends in "none" and "{}".
    texts = b"\0\0\0\0\0\0\0\2ab" + b"\0\0\0\0\0\0\0\2\xc3\xa9"
    texts += b"\0\0\0\0\0\0\0\4none" + b"\0\0\0\0\0\0\0\2{}"
    assert digest(tmp_path, ("ab", "é")) == hashlib.sha256(texts).hexdigest()


def test_the_digest_tells_datasets_apart(tmp_path):
    digests = {
        digest(tmp_path, ("ab", "c")),
        digest(tmp_path, ("a", "bc")),
        digest(tmp_path, ("a", "x"), ("b", "y")),
        digest(tmp_path, ("b", "y"), ("a", "x")),
        digest(tmp_path, ("a", "x")),
    }
    assert len(digests) == 5


def test_another_domain_or_label_is_another_dataset(tmp_path):
    """A run whose domains were corrected must not pass for the finished one."""
    row = {"id": "a", "prompt": "x", "domain": "law", "lang": "en"}
    digests = {
        load_dataset(write(tmp_path, [{**row, **changed}]), DatasetOptions()).digest
        for changed in ({}, {"domain": "art"}, {"lang": "de"}, {"domain": "en", "lang": "law"})
    }
    assert len(digests) == 4


def test_what_is_not_captured_is_part_of_the_digest_where_there_is_such_a_row(tmp_path):
    """Rows a, b and c; all captured gives the digest of a file without the column."""

    def digest_of(*captured):
        rows = [{"id": i, "prompt": "x"} for i in "abc"]
        for row, value in zip(rows, captured, strict=False):
            row["capture"] = value
        return load_dataset(write(tmp_path, rows), DatasetOptions()).digest

    assert digest_of(True, True, None) == digest_of()
    digests = {digest_of(), digest_of(False), digest_of(True, False), digest_of(False, False)}
    assert len(digests) == 4


def test_demo_is_the_bundled_file(tmp_path, monkeypatch):
    path = write(tmp_path, [{"id": "d1", "domain": "code", "prompt": "x"}])
    monkeypatch.setattr(loader, "DEMO_PATH", Path(path))
    dataset = load_dataset("demo", DatasetOptions())
    assert dataset.name == "demo"
    assert dataset.rows == (DatasetRow("d1", "x", "code"),)
    assert dataset.chat_template_default is False


@pytest.mark.parametrize(
    ("name", "options", "flag"),
    [
        ("demo", {"data_dir": Path()}, "--data-dir"),
        ("demo", {"split": "test"}, "--split"),
        ("demo", {"domain_map": Path("m.toml")}, "--domain-map"),
        ("mmlu", {"prompt_field": "question"}, "--prompt-field"),
        ("mmlu", {"domain_field": "subject"}, "--domain-field"),
        ("mmlu", {"capture_field": "subject"}, "--capture-field"),
        ("demo", {"capture_field": "keep"}, "--capture-field"),
        ("some.csv", {"split": "test"}, "--split"),
        ("some.csv", {"data_dir": Path()}, "--data-dir"),
        ("owner/name", {"domain_map": Path("m.toml")}, "--domain-map"),
    ],
)
def test_options_that_would_be_ignored_are_refused(name, options, flag):
    with pytest.raises(InputError, match=flag):
        load_dataset(name, DatasetOptions(**options))


@pytest.mark.parametrize("name", ["", "mmluu", "owner/", "a b/c", "owner/name:"])
def test_unknown_names_are_refused_without_asking_the_hub(name):
    with pytest.raises(DatasetError, match="no dataset is named") as caught:
        load_dataset(name, DatasetOptions())
    assert "demo, mmlu" in caught.value.hint
