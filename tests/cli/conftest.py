"""Runs the command line in this process and keeps what a user would see."""

import json
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tracer.cli import run


@dataclass(frozen=True)
class Told:
    exit_code: int
    stdout: str
    stderr: str

    def failed(self, exit_code, *words):
        """Nothing on stdout, one Error line, at most one Hint behind it, nothing else."""
        assert self.exit_code == exit_code, self
        assert self.stdout == ""
        lines = self.stderr.splitlines()
        errors = [line for line in lines if line.startswith("Error: ")]
        hints = [line for line in lines if line.startswith("Hint: ")]
        assert len(errors) == 1, self
        assert len(hints) <= 1, self
        assert lines[-1 - len(hints) :] == errors + hints
        assert "Traceback" not in self.stderr
        for word in words:
            assert word in self.stderr
        return True


@pytest.fixture
def tracer(capfd, monkeypatch, tmp_path):
    """``tracer("audit", "--lake", ...)`` in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TRACER_LAKE", raising=False)

    def call(*words):
        capfd.readouterr()
        exit_code = run([str(word) for word in words])
        return Told(exit_code, *capfd.readouterr())

    return call


@pytest.fixture
def interchange(tmp_path):
    """Files of a run of two requests, two layers, k = 2 of E = 4; changes go in by name."""

    def write(folder="in", *, routing=None, requests=None, run=None):
        target = tmp_path / folder
        target.mkdir(exist_ok=True)
        keys = [(q, p, n) for q in ("a", "b") for p in (0, 1, 2) for n in (1, 3)]
        columns = {
            "request_id": [q for q, _, _ in keys],
            "position": [p for _, p, _ in keys],
            "token_id": [100 + p for _, p, _ in keys],
            "layer_id": [n for _, _, n in keys],
            "expert_ids": [[0, 1] if q == "a" else [0, 2] for q, _, _ in keys],
            "gate_weights": [[0.25, 0.5]] * len(keys),
        }
        pq.write_table(pa.table({**columns, **(routing or {})}), target / "routing.parquet")
        described = {
            "request_id": ["a", "b"],
            "domain": ["law", "art"],
            "num_prompt_tokens": [2, 2],
            "language": ["en", "de"],
        }
        pq.write_table(pa.table({**described, **(requests or {})}), target / "requests.parquet")
        facts = {"model": "m", "num_experts": 4, "top_k": 2, "moe_layers": [1, 3], "note": "x"}
        facts = {key: value for key, value in {**facts, **(run or {})}.items() if value is not None}
        (target / "run.json").write_text(json.dumps(facts))
        return [
            word
            for name in ("routing.parquet", "requests.parquet", "run.json")
            for word in (f"--{name.split('.')[0]}", str(target / name))
        ]

    return write
