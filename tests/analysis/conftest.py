"""Lakes for analysis tests: all tables of a few requests, rolled up here in plain Python.

Nothing of ``tracer.store`` is used, so that a slip there cannot hide one here.
"""

import datetime as dt
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tracer.errors import UnknownRunError
from tracer.schema import TABLES, arrow_schema

STARTED = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


@dataclass
class Request:
    """``prompt`` and ``generated``: one dict per token, {layer_id: {expert_id: gate weight}}.

    token_ids: of all tokens, one more than were routed where something was generated; by default
        -1, as of an import that does not know them
    logits: one dict per token, {layer_id: [logit by expert]}; empty where not recorded
    """

    request_id: str
    domain: str
    prompt: list
    generated: list = field(default_factory=list)
    labels: dict = field(default_factory=dict)
    status: str = "complete"
    token_ids: list = field(default_factory=list)
    logits: list = field(default_factory=list)


@dataclass
class FilesLake:
    """The Lake contract over Parquet files written by the test."""

    path: Path
    table_files: dict
    run_rows: list

    @property
    def location(self):
        return str(self.path)

    def dataset(self, table, files):
        return None

    def files(self, table, run_id=None):
        return sorted(str(p) for p in self.table_files[table])

    def run(self, run_id=None):
        rows = {row["run_id"]: row for row in self.run_rows}
        if run_id is None and len(rows) == 1:
            return next(iter(rows.values()))
        if run_id not in rows:
            raise UnknownRunError(run_id, list(rows))
        return rows[run_id]


def f32(weight):
    return float(np.float32(weight))


def phases(request):
    """(phase, position, token) of every recorded token; the last prompt token comes twice."""
    for position, token in enumerate(request.prompt):
        yield "prompt", position, token
    if request.prompt:
        yield "last-prompt", len(request.prompt) - 1, request.prompt[-1]
    for position, token in enumerate(request.generated, len(request.prompt)):
        yield "generated", position, token


def candidates_of(logits, top_m):
    """(ids, scores) of the ``top_m`` experts with the largest softmax, equal ones by id."""
    powers = np.exp(np.array(logits) - max(logits))
    scores = (powers / powers.sum()).astype(np.float32)
    ids = np.argsort(-scores, kind="stable")[:top_m]
    return ids.tolist(), scores[ids].tolist()


def tables_of(requests, run, top_m=0):
    """Rows of every table by its name."""
    rows = {table: [] for table in TABLES}
    rows["runs"].append(run)
    by_domain = defaultdict(list)
    for index, request in enumerate(requests):
        key = {"run_id": run["run_id"], "request_id": request.request_id}
        rows["requests"].append(
            {
                **key,
                "sample_index": 0,
                "row_id": request.request_id,
                "domain": request.domain,
                "labels": list(request.labels.items()),
                "status": request.status,
                "num_prompt_tokens": len(request.prompt),
                "num_generated_tokens": len(request.generated),
                "cached_prefix_tokens": 0,
                "prompt_digest": "0",
            }
        )
        num_tokens = len(request.prompt) + len(request.generated)
        for position, token_id in enumerate(request.token_ids or [-1] * num_tokens):
            phase = "prompt" if position < len(request.prompt) else "generated"
            rows["tokens"].append(
                {**key, "position": position, "token_id": token_id, "phase": phase}
            )
        for position, layers in enumerate(request.logits):
            for layer_id, logits in layers.items():
                place = {**key, "position": position, "layer_id": layer_id}
                rows["router_logits"].append({**place, "logits": logits})
                if top_m:
                    ids, scores = candidates_of(logits, top_m)
                    rows["candidates"].append({**place, "expert_ids": ids, "scores": scores})
        by_request = defaultdict(list)
        for phase, position, token in phases(request):
            for layer_id, weights in token.items():
                chosen = sorted(weights.items(), key=lambda item: (-item[1], item[0]))
                if phase != "last-prompt":
                    rows["routing"].append(
                        {
                            **key,
                            "position": position,
                            "layer_id": layer_id,
                            "phase": phase,
                            "expert_ids": [expert for expert, _ in chosen],
                            "gate_weights": [f32(weight) for _, weight in chosen],
                        }
                    )
                by_request[phase, layer_id].append(chosen)
                for expert, weight in chosen:
                    cell = (f"shard-{index % 2}", request.domain, phase, layer_id, expert)
                    by_domain[cell].append(f32(weight))
        for (phase, layer_id), tokens in by_request.items():
            sums = defaultdict(list)
            for chosen in tokens:
                for expert, weight in chosen:
                    sums[expert].append(f32(weight))
            experts = sorted(sums)
            rows["usage"].append(
                {
                    **key,
                    "phase": phase,
                    "layer_id": layer_id,
                    "num_tokens": len(tokens),
                    "expert_ids": experts,
                    "num_choices": [len(sums[expert]) for expert in experts],
                    "weight_sum": [sum(sums[expert]) for expert in experts],
                }
            )
    for (shard, domain, phase, layer_id, expert), weights in by_domain.items():
        rows["usage_by_domain"].append(
            {
                "run_id": run["run_id"],
                "shard": shard,
                "domain": domain,
                "phase": phase,
                "layer_id": layer_id,
                "expert_id": expert,
                "num_choices": len(weights),
                "weight_sum": sum(weights),
                "weight_sq_sum": sum(weight**2 for weight in weights),
                "weight_min": min(weights),
                "weight_max": max(weights),
            }
        )
    return rows


@pytest.fixture
def make_lake(tmp_path):
    """Writes a run of ``requests`` as Parquet files, two per table, below a folder of tmp_path.

    ``uncommitted`` ones are in every table but `requests`, as a crash leaves them. ``routers`` are
    matrices by layer, experts x dimensions. ``top_m`` candidates are of requests with logits, of a
    softmax router that does not rescale. Lakes of one ``folder`` with other run ids are joined
    by ``together``.
    """

    def make(
        requests,
        *,
        uncommitted=(),
        status="complete",
        num_experts=8,
        top_k=2,
        folder="lake",
        run_id="r1",
        model="m",
        routers=None,
        top_m=0,
    ):
        root = tmp_path / folder
        run = {
            "run_id": run_id,
            "status": status,
            "model": model,
            "engine": "import",
            "num_experts": num_experts,
            "top_k": top_k,
            "moe_layers": sorted({layer for r in requests for t in r.prompt for layer in t}),
            "weight_precision": "f32",
            "tracer_version": "0",
            "started_at": STARTED,
            "scoring_function": "softmax",
            "renormalised": False,
        }
        files = {}
        every = tables_of([*requests, *uncommitted], run, top_m)
        every["requests"] = every["requests"][: len(requests)]
        for layer_id, matrix in (routers or {}).items():
            every["routers"].append(
                {
                    "run_id": run_id,
                    "layer_id": layer_id,
                    "num_experts": len(matrix),
                    "hidden_size": len(matrix[0]),
                    "weight": [float(weight) for row in matrix for weight in row],
                }
            )
        for table, rows in every.items():
            files[table] = []
            for part, some in enumerate((rows[::2], rows[1::2])):
                if some:
                    path = root / table / run_id / f"{part}.parquet"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    pq.write_table(pa.Table.from_pylist(some, schema=arrow_schema(table)), path)
                    files[table].append(path)
        return FilesLake(root, files, [run])

    return make


@pytest.fixture
def request_of():
    return Request
