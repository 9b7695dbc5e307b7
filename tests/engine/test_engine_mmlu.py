"""MMLU in its original layout, end to end: all 57 subjects, their domains, no unknown token."""

import csv
import json

import polars as pl
import pytest

from tests.mmlu_subjects import SUBJECTS
from tracer.api import open_lake

pytestmark = pytest.mark.engine


def test_all_subjects_reach_the_audit(engine, planted_model, tmp_path):
    """Three questions a subject, 120 taken: round-robin gives every subject two or three."""
    assert len(SUBJECTS) == 57
    folder = tmp_path / "data" / "test"
    folder.mkdir(parents=True)
    for subject in SUBJECTS:
        words = subject.replace("_", " ")
        with (folder / f"{subject}_test.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            for n in range(3):
                question = f'What, in {words}, is "number {n}"?\nChoose — wisely; naïve π ≈ 3.'
                writer.writerow([question, "one", "two, or so", "three", "four", "ABCD"[n]])
    done = engine.run(
        "capture", "--model", planted_model("olmoe"), "--dataset", "mmlu", "--data-dir", tmp_path,
        "--limit", "120", "--max-tokens", "2", "--lake", "lake", "--enforce-eager",
        "--format", "json", cwd=tmp_path,
    )  # fmt: skip
    assert done.exit_code == 0, done.stderr
    summary = json.loads(done.stdout)
    assert (summary["num_requests"], summary["num_domains"]) == (120, 8)
    assert summary["unmapped"] == {"miscellaneous": 2}

    lake = open_lake(tmp_path / "lake")
    counts = dict(
        lake.sql("select labels['subject'], count(*) from requests group by 1").fetchall()
    )
    assert set(counts) == set(SUBJECTS)
    assert set(counts.values()) == {2, 3}
    tokenizer = json.loads((planted_model("olmoe") / "tokenizer.json").read_text())
    vocabulary = set(tokenizer["model"]["vocab"].values())
    assert tokenizer["model"].get("unk_token") is None
    tokens = lake.scan("tokens").select(pl.col("token_id").unique()).collect()["token_id"]
    assert set(tokens) <= vocabulary
    audit = lake.audit()
    assert (audit.num_domains, audit.num_unlabelled) == (8, 2)
    assert [layer.layer_id for layer in audit.layers] == [0, 1, 2, 3]
