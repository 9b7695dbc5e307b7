"""Local files: every format, every way in which one can be wrong."""

import csv
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from tracer.datasets import DatasetOptions, lines, load_dataset
from tracer.errors import DatasetError
from tracer.records import DatasetRow

RECORDS = [
    {"id": "a1", "prompt": "Hi, there", "domain": "chat", "lang": "en", "n": 1},
    {"id": "a2", "prompt": 'Say "no"\nplease', "domain": "law", "lang": "dé", "n": 2},
]
ROWS = (
    DatasetRow("a1", "Hi, there", "chat", {"lang": "en", "n": "1"}),
    DatasetRow("a2", 'Say "no"\nplease', "law", {"lang": "dé", "n": "2"}),
)


def load(path, **options):
    return load_dataset(str(path), DatasetOptions(**options))


def refused(path, **options):
    with pytest.raises(DatasetError) as caught:
        load(path, **options)
    assert "\n" not in str(caught.value)
    return caught.value


def write(tmp_path, text, name="some.jsonl"):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def json_lines(records):
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def make(tmp_path, name):
    path = tmp_path / name
    if name.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist(RECORDS), path)
    elif name.endswith(".csv"):
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(RECORDS[0]))
            writer.writeheader()
            writer.writerows(RECORDS)
    else:
        raw = json_lines(RECORDS).encode()
        path.write_bytes(zstandard.compress(raw) if name.endswith(".zst") else raw)
    return path


@pytest.mark.parametrize("name", ["d.jsonl", "d.jsonl.zst", "d.csv", "d.parquet", "D.JSONL"])
def test_every_format_gives_the_same_rows(tmp_path, name):
    path = make(tmp_path, name)
    dataset = load(path)
    assert dataset.rows == ROWS
    assert dataset.name == str(path)
    assert dataset.chat_template_default is False
    assert dataset.unmapped == {}


@pytest.mark.parametrize("name", ["d.jsonl", "d.jsonl.zst", "d.csv", "d.parquet"])
def test_the_digest_does_not_depend_on_the_format(tmp_path, name):
    assert load(make(tmp_path, name)).digest == load(make(tmp_path, "reference.jsonl")).digest


@pytest.mark.parametrize("name", ["d.jsonl", "d.csv", "d.parquet"])
def test_named_columns(tmp_path, name):
    path = make(tmp_path, name)
    rows = load(path, prompt_field="domain", domain_field="n", id_field="lang").rows[:1]
    assert rows == (DatasetRow("en", "chat", "1", {"id": "a1", "prompt": "Hi, there"}),)


def test_an_id_column_may_hold_integers_and_is_optional(tmp_path):
    path = write(tmp_path, '{"id": 7, "prompt": "x"}\n')
    assert [row.row_id for row in load(path).rows] == ["7"]
    path = write(tmp_path, '{"prompt": "x"}\n\n{"prompt": "y"}')
    assert load(path).rows == (DatasetRow("0", "x"), DatasetRow("1", "y"))


def test_scalars_become_labels_as_text_and_nested_values_do_not(tmp_path):
    path = write(tmp_path, '{"prompt": "x", "b": true, "f": 0.5, "z": null, "l": [1], "o": {}}')
    assert load(path).rows[0].labels == {"b": "true", "f": "0.5"}


def test_rows_without_a_domain_are_none(tmp_path):
    text = '{"prompt": "x"}\n{"prompt": "y", "domain": "law"}\n{"prompt": "z", "domain": null}\n'
    assert [row.domain for row in load(write(tmp_path, text)).rows] == ["none", "law", "none"]
    path = write(tmp_path, "prompt,domain\nx,\ny,law\n", "some.csv")
    assert [row.domain for row in load(path).rows] == ["none", "law"]


@pytest.mark.parametrize(
    ("name", "text"), [("b.jsonl", '{"prompt": "x"}'), ("b.csv", "prompt\nx\n")]
)
def test_a_byte_order_mark_is_passed_over(tmp_path, name, text):
    path = write(tmp_path, b"\xef\xbb\xbf" + text.encode(), name)
    assert load(path).rows == (DatasetRow("0", "x"),)


@pytest.mark.parametrize(
    ("name", "text"),
    [("e.jsonl", ""), ("e.jsonl", "\n \n"), ("e.csv", ""), ("e.csv", "prompt,id\n")],
)
def test_empty_files(tmp_path, name, text):
    assert "has no rows" in str(refused(write(tmp_path, text, name)))


def test_an_empty_parquet_file(tmp_path):
    path = tmp_path / "e.parquet"
    pq.write_table(pa.table({"prompt": pa.array([], pa.string())}), path)
    assert "has no rows" in str(refused(path))


@pytest.mark.parametrize("name", ["d.jsonl", "d.csv", "d.parquet"])
def test_a_named_column_that_is_not_there(tmp_path, name):
    path = make(tmp_path, name)
    for option in ("prompt_field", "domain_field", "id_field"):
        error = refused(path, **{option: "nope"})
        assert str(error).endswith("has no column 'nope'; it has: id, prompt, domain, lang, n")


def test_the_prompt_column_is_needed(tmp_path):
    error = refused(write(tmp_path, "text,id\nx,1\n", "some.csv"))
    assert str(error).endswith("has no column 'prompt'; it has: text, id")
    assert "--prompt-field" in error.hint


def test_a_named_domain_may_begin_in_a_later_json_line(tmp_path):
    path = write(tmp_path, '{"prompt": "x"}\n{"prompt": "y", "topic": "law"}\n')
    assert [row.domain for row in load(path, domain_field="topic").rows] == ["none", "law"]


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ("{", "line 2: not JSON"),
        ("[1]", "line 2: not a JSON object"),
        ("[" * 100_000, "line 2: JSON that cannot be read"),
        ("1" * 5000, "line 2: JSON that cannot be read"),
        ('{"id": "b"}', "line 2: 'prompt' is null or missing"),
        ('{"id": "b", "prompt": null}', "line 2: 'prompt' is null or missing"),
        ('{"id": "b", "prompt": 3}', "line 2: 'prompt' is a int, not text"),
        ('{"id": "b", "prompt": ""}', "line 2: 'prompt' is empty"),
        ('{"id": "b", "prompt": "\\ud800"}', "line 2: 'prompt' holds a lone surrogate"),
        ('{"id": "b", "prompt": "x", "k": "\\ud800"}', "line 2: 'k' holds a lone surrogate"),
        ('{"id": "a", "prompt": "x"}', "line 2: the id 'a' occurs twice"),
        ('{"prompt": "x"}', "line 2: 'id' is no usable id"),
        ('{"id": "", "prompt": "x"}', "line 2: 'id' is no usable id"),
        ('{"id": true, "prompt": "x"}', "line 2: 'id' is no usable id"),
        ('{"id": "b\\u0000", "prompt": "x"}', "line 2: the id 'b\\x00' holds a control character"),
        ('{"id": "b\\u2028", "prompt": "x"}', "holds a control character"),
        ('{"id": "%s", "prompt": "x"}' % ("b" * 201), "line 2: the id has 201 characters"),
        ('{"id": "b", "prompt": "x", "domain": ["law"]}', "line 2: 'domain' is a list"),
    ],
)
def test_bad_json_lines_are_named(tmp_path, second, message):
    path = write(tmp_path, '{"id": "a", "prompt": "x"}\n' + second + "\n")
    error = refused(path)
    assert message in str(error)
    assert str(path) in str(error)


def test_an_id_of_200_characters_is_taken(tmp_path):
    path = write(tmp_path, json.dumps({"id": "b" * 200, "prompt": "x"}))
    assert load(path).rows[0].row_id == "b" * 200


def test_an_id_that_comes_late_is_refused(tmp_path):
    path = write(tmp_path, '{"prompt": "x"}\n{"id": "b", "prompt": "y"}\n')
    assert "line 2: this record has an 'id', the first one has none" in str(refused(path))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("prompt,id\nx,1\ny\n", "line 3: 1 values under 2 column names"),
        ("prompt,id\nx,1,2\n", "line 2: 3 values under 2 column names"),
        ('prompt,id\nx,1\n\n"y,2\n', "line 4: not CSV"),
        ('prompt,id\n"a\nb",1\n,2\n', "line 4: 'prompt' is empty"),
        ("prompt,id,id\nx,1,2\n", "two columns named 'id'"),
        ("prompt,id\nx,1\ny,1\n", "line 3: the id '1' occurs twice"),
    ],
)
def test_bad_csv_is_named(tmp_path, text, message):
    assert message in str(refused(write(tmp_path, text, "some.csv")))


def test_a_csv_field_may_exceed_the_modules_own_limit(tmp_path):
    limit = csv.field_size_limit()
    assert limit == 128 * 1024
    long = "x" * (limit + 1)
    assert load(write(tmp_path, f"prompt\n{long}\n", "some.csv")).rows[0].prompt == long
    assert csv.field_size_limit() == limit


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("u.jsonl", '{"prompt": "x"}\n{"prompt": "é"}\n'),
        ("u.csv", "prompt\né\n"),
    ],
)
def test_text_that_is_not_utf8(tmp_path, name, text):
    path = write(tmp_path, text.encode("latin-1"), name)
    assert str(refused(path)) == f"{path}, line 2: not UTF-8"


def test_a_line_beyond_the_bound_is_refused(tmp_path, monkeypatch):
    assert lines.MAX_LINE_BYTES == 64 * 1024 * 1024
    monkeypatch.setattr(lines, "MAX_LINE_BYTES", 15)
    assert load(write(tmp_path, '{"prompt": "x"}')).rows[0].prompt == "x"
    error = refused(write(tmp_path, '{"prompt":"x"}\n{"prompt": "xy"}\n'))
    assert "line 2: longer than 15 bytes" in str(error)


def test_a_path_that_cannot_be_read(tmp_path):
    assert "no such file" in str(refused(tmp_path / "missing.csv"))
    assert "no such file" in str(refused("missing.jsonl"))
    assert "no such file" in str(refused("some/missing.txt"))
    assert "no such file" in str(refused("./missing"))
    error = refused(write(tmp_path, "x", "some.txt"))
    assert "of a kind that cannot be read" in str(error)
    assert ".jsonl, .jsonl.zst, .csv, .parquet" in error.hint


def test_a_hundred_thousand_lines_load(tmp_path):
    path = tmp_path / "many.jsonl"
    path.write_text("".join(f'{{"prompt": "p{i}", "domain": "d{i % 3}"}}\n' for i in range(10**5)))
    rows = load(path).rows
    assert len(rows) == 10**5
    assert rows[-1] == DatasetRow("99999", "p99999", "d0")


CAPTURED = [
    {"id": "a", "prompt": "x", "capture": True, "keep": False},
    {"id": "b", "prompt": "y", "capture": False, "keep": True},
    {"id": "c", "prompt": "z", "capture": None, "keep": None},
]


def write_captured(tmp_path, name):
    path = tmp_path / name
    if name.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist(CAPTURED), path)
    elif name.endswith(".csv"):
        path.write_text("id,prompt,capture,keep\na,x,True,false\nb,y,FALSE,true\nc,z,,\n")
    else:
        path.write_text(json_lines(CAPTURED))
    return path


@pytest.mark.parametrize("name", ["d.jsonl", "d.csv", "d.parquet"])
def test_a_column_tells_which_rows_are_captured(tmp_path, name):
    """By default the column `capture`; a row without a value is captured."""
    path = write_captured(tmp_path, name)
    rows = load(path).rows
    assert [(row.row_id, row.capture) for row in rows] == [("a", True), ("b", False), ("c", True)]
    assert [set(row.labels) for row in rows[:2]] == [{"keep"}, {"keep"}]
    rows = load(path, capture_field="keep").rows
    assert [row.capture for row in rows] == [False, True, True]
    assert [set(row.labels) for row in rows[:2]] == [{"capture"}, {"capture"}]


def test_a_later_record_may_be_the_first_that_is_not_captured(tmp_path):
    records = [{"prompt": "x"}, {"prompt": "y", "capture": False}]
    path = write(tmp_path, json_lines(records))
    assert [row.capture for row in load(path).rows] == [True, False]
    assert [row.capture for row in load(path, capture_field="capture").rows] == [True, False]


@pytest.mark.parametrize("value", ["no", 0, 1.0, "wahr"])
def test_what_is_neither_true_nor_false_is_refused(tmp_path, value):
    error = refused(write(tmp_path, json_lines([{"prompt": "x", "capture": value}])))
    assert f"line 1: 'capture' is {value!r}, not true or false" in str(error)
    assert "--capture-field" in error.hint


@pytest.mark.parametrize("name", ["d.jsonl", "d.csv", "d.parquet"])
def test_a_named_capture_column_must_exist(tmp_path, name):
    assert "no column 'keeps'" in str(refused(make(tmp_path, name), capture_field="keeps"))
