"""Hub datasets: the real library, offline, on local folders."""

import json
import sys

import datasets as hf
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tracer.datasets import DatasetOptions, load_dataset
from tracer.errors import DatasetError, MissingLibraryError
from tracer.records import DatasetRow


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setattr(hf.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


def write(folder, name, records):
    folder.mkdir(exist_ok=True)
    (folder / name).write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(folder)


def load(name, **options):
    return load_dataset(name, DatasetOptions(**options))


def refused(name, **options):
    with pytest.raises(DatasetError) as caught:
        load(name, **options)
    assert "\n" not in str(caught.value)
    return caught.value


def test_a_folder_of_json_lines(tmp_path):
    records = [
        {"id": "r1", "text": "x", "domain": "law", "lang": "en", "tags": ["a"]},
        {"id": "r2", "text": "y", "domain": None, "lang": "de", "tags": []},
    ]
    dataset = load(write(tmp_path / "d", "data.jsonl", records))
    assert dataset.rows == (
        DatasetRow("r1", "x", "law", {"lang": "en"}),
        DatasetRow("r2", "y", "none", {"lang": "de"}),
    )
    assert dataset.name == str(tmp_path / "d")
    assert dataset.chat_template_default is False


def test_folders_of_csv_and_parquet(tmp_path):
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "data.csv").write_text('prompt,n\n"x, y",1\n')
    assert load(str(tmp_path / "c")).rows == (DatasetRow("0", "x, y", "none", {"n": "1"}),)
    (tmp_path / "p").mkdir()
    pq.write_table(pa.table({"prompt": ["x"]}), tmp_path / "p" / "data.parquet")
    assert load(str(tmp_path / "p")).rows == (DatasetRow("0", "x"),)


def test_the_split_is_test_then_validation_then_train(tmp_path):
    folder = tmp_path / "d"
    write(folder, "train.jsonl", [{"prompt": "from train"}])
    assert load(str(folder)).rows[0].prompt == "from train"
    write(folder, "validation.jsonl", [{"prompt": "from validation"}])
    assert load(str(folder)).rows[0].prompt == "from validation"
    write(folder, "test.jsonl", [{"prompt": "from test"}])
    assert load(str(folder)).rows[0].prompt == "from test"
    assert load(str(folder), split="train").rows[0].prompt == "from train"
    assert "Unknown split" in str(refused(str(folder), split="nope"))


def test_a_split_may_be_a_slice(tmp_path):
    folder = write(tmp_path / "d", "data.jsonl", [{"prompt": text} for text in "xyz"])
    assert [row.prompt for row in load(folder, split="train[1:]").rows] == ["y", "z"]


def test_the_first_known_prompt_column_is_taken(tmp_path):
    folder = write(tmp_path / "d", "data.jsonl", [{"content": "c", "question": "q", "text": "t"}])
    assert load(folder).rows[0].prompt == "t"
    assert load(folder, prompt_field="question").rows[0].prompt == "q"


def test_columns_that_are_not_there(tmp_path):
    folder = write(tmp_path / "d", "data.jsonl", [{"a": "x", "tags": ["b"]}])
    assert str(refused(folder)) == f"{folder} has no column 'prompt'; it has: a, tags"
    assert "has no column 'b'" in str(refused(folder, prompt_field="b"))
    assert "has no column 'b'" in str(refused(folder, prompt_field="a", domain_field="b"))
    assert "row 0: 'tags' is a list" in str(refused(folder, prompt_field="tags"))


def test_class_labels_are_named(monkeypatch):
    features = hf.Features(
        {"prompt": hf.Value("string"), "topic": hf.ClassLabel(names=["law", "code"])}
    )
    found = hf.Dataset.from_dict({"prompt": ["x", "y"], "topic": [1, -1]}, features=features)
    monkeypatch.setattr(hf, "load_dataset", lambda *_, **__: hf.DatasetDict(test=found))
    rows = load("owner/name", domain_field="topic").rows
    assert [row.domain for row in rows] == ["code", "none"]
    assert load("owner/name").rows[0].labels == {"topic": "code"}


@pytest.mark.parametrize(
    ("name", "expected"),
    [("owner/name", ("owner/name", None)), ("owner/name:cfg", ("owner/name", "cfg"))],
)
def test_a_name_may_hold_a_configuration(monkeypatch, name, expected):
    asked = []

    def load_hub(*args, split):
        asked.append((args, split))
        return hf.DatasetDict(train=hf.Dataset.from_dict({"prompt": ["x"]}))

    monkeypatch.setattr(hf, "load_dataset", load_hub)
    assert load(name).name == name
    assert asked == [(expected, None)]


def test_a_dataset_without_the_usual_splits(monkeypatch):
    found = hf.DatasetDict(odd=hf.Dataset.from_dict({"prompt": ["x"]}))
    monkeypatch.setattr(hf, "load_dataset", lambda *_, **__: found)
    error = refused("owner/name")
    assert "has none of the splits test, validation, train; it has: odd" in str(error)
    assert "--split" in error.hint


def test_an_empty_split(monkeypatch):
    found = hf.DatasetDict(test=hf.Dataset.from_dict({"prompt": []}))
    monkeypatch.setattr(hf, "load_dataset", lambda *_, **__: found)
    assert "has no rows" in str(refused("owner/name"))


def test_an_empty_folder_and_a_damaged_file(tmp_path):
    folder = tmp_path / "d"
    folder.mkdir()
    assert "doesn't contain any data files" in str(refused(str(folder)))
    (folder / "data.jsonl").write_text('{"prompt": "x"\n')
    error = refused(str(folder))
    assert "JSON parse error" in str(error)
    assert "local file" in error.hint


def test_a_folder_has_no_configurations(tmp_path):
    folder = write(tmp_path / "d", "data.jsonl", [{"prompt": "x"}])
    assert "no such file" in str(refused(folder + ":cfg"))


def test_without_the_library(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingLibraryError, match="'datasets' is not installed"):
        load("owner/name")
    with pytest.raises(MissingLibraryError):
        load(str(tmp_path))
