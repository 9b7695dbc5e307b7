"""MMLU: prompts, the map of subjects to domains, both places it can come from."""

import sys
from collections import Counter

import datasets as hf
import pytest

from tests.mmlu_subjects import SUBJECTS
from tracer.datasets import DatasetOptions, load_dataset
from tracer.datasets.mmlu import BUNDLED_MAP
from tracer.domain_map import load_domains
from tracer.errors import DatasetError, InputError, MissingLibraryError
from tracer.records import DatasetRow

ANATOMY = '''"Which is, by far, the largest?",liver,"heart, left",bone,skin,D
"Two
lines of ""text""",1,2,3,4,A
'''
MISC = "Who?,me,you,he,she,B\n"
PROMPTS = {
    "anatomy/0000": "Question: Which is, by far, the largest?\nChoices:\nA. liver\n"
    "B. heart, left\nC. bone\nD. skin\nAnswer:",
    "anatomy/0001": 'Question: Two\nlines of "text"\nChoices:\nA. 1\nB. 2\nC. 3\nD. 4\nAnswer:',
    "miscellaneous/0000": "Question: Who?\nChoices:\nA. me\nB. you\nC. he\nD. she\nAnswer:",
}


def folder(tmp_path, where="data/test", ending="_test.csv", **subjects):
    target = tmp_path / where
    target.mkdir(parents=True)
    for subject, text in (subjects or {"miscellaneous": MISC, "anatomy": ANATOMY}).items():
        (target / f"{subject}{ending}").write_text(text)
    return tmp_path


def load(**options):
    return load_dataset("mmlu", DatasetOptions(**options))


@pytest.mark.parametrize("where", ["data/test", "test"])
def test_the_original_files(tmp_path, where):
    dataset = load(data_dir=folder(tmp_path, where))
    assert dataset.name == "mmlu"
    assert dataset.chat_template_default is True
    assert {row.row_id: row.prompt for row in dataset.rows} == PROMPTS
    assert [row.row_id for row in dataset.rows] == sorted(PROMPTS)
    assert dataset.rows[0].domain == "STEM-BioMed"
    assert dataset.rows[0].labels == {"subject": "anatomy", "answer": "D"}
    assert dataset.rows[2].domain == "none"
    assert dataset.unmapped == {"miscellaneous": 1}


def test_another_split(tmp_path):
    data_dir = folder(tmp_path, "data/val", "_val.csv")
    assert len(load(data_dir=data_dir, split="val").rows) == 3
    assert len(load(data_dir=data_dir, split="validation").rows) == 3


def test_limit_goes_round_the_subjects(tmp_path):
    data_dir = folder(tmp_path)
    rows = load(data_dir=data_dir, limit=2).rows
    assert [row.row_id for row in rows] == ["anatomy/0000", "miscellaneous/0000"]
    rows = load(data_dir=data_dir, limit=3).rows
    assert [row.row_id for row in rows][2] == "anatomy/0001"


def test_unmapped_counts_the_rows_taken(tmp_path):
    assert load(data_dir=folder(tmp_path), limit=1).unmapped == {}


def test_a_folder_without_the_files(tmp_path):
    with pytest.raises(DatasetError, match=r"no \*_test.csv files in .*data/test nor in") as caught:
        load(data_dir=tmp_path)
    assert "--data-dir" in caught.value.hint


@pytest.mark.parametrize("line", ["q,a,b,c,d", "q,a,b,c,d,E", "q,a,b,c,d,", "q,a,b,c,d,AB"])
def test_a_line_that_is_no_question_is_named(tmp_path, line):
    data_dir = folder(tmp_path, anatomy=ANATOMY + line + "\n")
    with pytest.raises(DatasetError, match=r"anatomy_test.csv, line 4: not a question"):
        load(data_dir=data_dir)


def test_empty_subject_files(tmp_path):
    with pytest.raises(DatasetError, match="mmlu has no rows"):
        load(data_dir=folder(tmp_path, anatomy=""))


def test_every_subject_but_miscellaneous_is_mapped_once():
    assert len(SUBJECTS) == len(set(SUBJECTS)) == 57
    by_subject = load_domains(BUNDLED_MAP)
    assert sorted(by_subject) == sorted(set(SUBJECTS) - {"miscellaneous"})
    assert Counter(by_subject.values()) == {
        "STEM-Math": 5,
        "STEM-Physics": 4,
        "STEM-Chemistry": 2,
        "STEM-BioMed": 11,
        "CS-Eng": 5,
        "SocSci": 11,
        "Humanities": 11,
        "Biz-Law": 7,
    }
    assert "Lang-Ling = []" in BUNDLED_MAP.read_text()


def test_the_users_map_replaces_the_bundled_one(tmp_path):
    path = tmp_path / "map.toml"
    path.write_text('"Odds and ends" = ["miscellaneous"]\nempty = []\n')
    dataset = load(data_dir=folder(tmp_path), domain_map=path)
    assert [row.domain for row in dataset.rows] == ["none", "none", "Odds and ends"]
    assert dataset.unmapped == {"anatomy": 2}


@pytest.mark.parametrize("head", ["", "[domains]\n"])
def test_the_users_map_may_be_a_table(tmp_path, head):
    """As `audit --domains` takes it."""
    path = tmp_path / "map.toml"
    path.write_text(f'{head}all = ["anatomy"]\n')
    dataset = load(data_dir=folder(tmp_path), domain_map=path)
    assert {row.domain for row in dataset.rows if row.labels["subject"] == "anatomy"} == {"all"}


def test_a_map_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match=r"cannot read the domain map .*: No such file"):
        load(data_dir=folder(tmp_path), domain_map=tmp_path / "missing.toml")


HUB = {
    "question": ["Who?", "Which is, by far, the largest?", 'Two\nlines of "text"'],
    "subject": ["miscellaneous", "anatomy", "anatomy"],
    "choices": [
        ["me", "you", "he", "she"],
        ["liver", "heart, left", "bone", "skin"],
        ["1", "2", "3", "4"],
    ],
    "answer": [1, 3, 0],
}


def hub(monkeypatch, columns):
    asked = []

    def load_hub(*args, **kwargs):
        asked.append((args, kwargs))
        found = hf.Dataset.from_dict(columns)
        if "answer" in columns:
            found = found.cast_column("answer", hf.ClassLabel(names=list("ABCD")))
        return found

    monkeypatch.setattr(hf, "load_dataset", load_hub)
    return asked


def test_the_hub_copy_gives_the_same_rows(tmp_path, monkeypatch):
    asked = hub(monkeypatch, HUB)
    rows = load().rows
    assert asked == [(("cais/mmlu", "all"), {"split": "test"})]
    original = load(data_dir=folder(tmp_path)).rows
    assert sorted(rows, key=lambda row: row.row_id) == list(original)
    assert rows[0] == DatasetRow(
        "miscellaneous/0000",
        PROMPTS["miscellaneous/0000"],
        "none",
        {"subject": "miscellaneous", "answer": "B"},
    )


def test_a_hub_copy_of_another_form(monkeypatch):
    hub(monkeypatch, {key: HUB[key] for key in ("question", "subject", "choices")})
    with pytest.raises(DatasetError, match="cais/mmlu has no column 'answer'"):
        load()
    hub(monkeypatch, HUB | {"choices": [["a", "b", "c"]] * 3})
    with pytest.raises(DatasetError, match="row 0: not a question with four choices"):
        load()


def test_no_network_points_to_the_files(monkeypatch):
    def unreachable(*args, **kwargs):
        message = "Couldn't reach 'cais/mmlu' on the Hub\nand more"
        raise ConnectionError(message)

    monkeypatch.setattr(hf, "load_dataset", unreachable)
    with pytest.raises(DatasetError, match=r"Couldn't reach 'cais/mmlu' on the Hub$") as caught:
        load()
    assert "--data-dir" in caught.value.hint


def test_the_library_is_needed_only_for_the_hub(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert len(load(data_dir=folder(tmp_path)).rows) == 3
    with pytest.raises(MissingLibraryError, match="'datasets' is not installed") as caught:
        load()
    assert "moe-tracer[hub]" in caught.value.hint
