"""An independent reading of a planted checkpoint: nothing here imports tracer."""

import json
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

ARCHITECTURES = ("olmoe", "qwen3_moe", "deepseek_v2")
ROOT = Path(__file__).resolve().parents[2]
PROMPTS = ROOT / "tracer" / "datasets" / "prompts" / "demo.jsonl"


def write_model(directory, architecture="olmoe", seed=0):
    """Run the writer in a process of its own; returns the finished process."""
    code = (
        "import sys; from pathlib import Path; from tracer.demo import write_demo_model;"
        "write_demo_model(Path(sys.argv[1]), architecture=sys.argv[2], seed=int(sys.argv[3]))"
    )
    return subprocess.run(
        [sys.executable, "-c", code, str(directory), architecture, str(seed)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def read_truth(directory):
    return json.loads((directory / "planted.json").read_text())


def read_prompts():
    return [json.loads(line) for line in PROMPTS.read_text().splitlines()]


def logit_table(directory):
    """{layer id: {domain: (E,) mean logit over the domain's tokens}} from the weights."""
    truth = read_truth(directory)
    tensors = load_file(directory / "model.safetensors")
    embeddings = tensors["model.embed_tokens.weight"].astype(np.float64)
    hidden = embeddings / np.sqrt((embeddings**2).mean(axis=1, keepdims=True) + 1e-6)
    return {
        layer_id: {
            domain: (hidden[ids] @ tensors[f"model.layers.{layer_id}.mlp.gate.weight"].T).mean(0)
            for domain, ids in truth["domain_tokens"].items()
        }
        for layer_id in truth["moe_layers"]
    }


def ranks_of(row, top_k=4):
    """{expert: rank} of the ``top_k`` largest values."""
    order = sorted(range(len(row)), key=lambda expert: -row[expert])
    return {expert: rank for rank, expert in enumerate(order[:top_k], start=1)}


def committee_of(rows, top_k=4):
    """Pareto set on (mean rank, rank variance) of the experts listed in 8 of 9 domains."""
    needed = -(-len(rows) * 8 // 10)
    scores = {}
    for expert in {expert for row in rows for expert in row}:
        if sum(expert in row for row in rows) >= needed:
            own = [Fraction(row.get(expert, top_k + 1)) for row in rows]
            mean = sum(own) / len(own)
            scores[expert] = (mean, sum((rank - mean) ** 2 for rank in own) / len(own))
    return sorted(
        expert
        for expert, (mean, variance) in scores.items()
        if not any(
            m <= mean and v <= variance and (m, v) != (mean, variance) for m, v in scores.values()
        )
    )
