"""Captures bundled prompts while keeping the router input of every token of the same forward.

usage: capture_router_inputs.py MODEL FOLDER
Writes FOLDER/lake and FOLDER/inputs.pt: layer -> request -> router logits [n, E], computed here
in float32 as input x router weight.
"""

import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

from tracer.capture import worker
from tracer.capture.steps import watch_steps
from tracer.cli import run

model_path, folder = sys.argv[1], Path(sys.argv[2])
# From the checkpoint: the CPU engine packs its own copy into another layout.
weights = load_file(Path(model_path) / "model.safetensors")
inputs: dict[int, torch.Tensor] = {}
kept: dict[int, dict[str, dict[int, torch.Tensor]]] = {}
attach = worker.WorkerCapture.attach


def attach_and_keep(self):
    """After tracer attached: keep what enters each gate, and label it by request and position."""
    attach(self)
    runner = self._worker.model_runner
    for number, layer in enumerate(runner.get_model().model.layers):
        gate = getattr(layer.mlp, "gate", None)
        if gate is None:
            continue

        def keep(module, arguments, number=number):
            router = weights[f"model.layers.{number}.mlp.gate.weight"]
            inputs[number] = arguments[0].detach().float() @ router.T

        gate.register_forward_pre_hook(keep)

    def label(step):
        start = 0
        for request, count in zip(step.request_ids, step.row_counts, strict=True):
            for row in range(start, start + count):
                for number, logits in inputs.items():
                    name = request.rsplit("-", 1)[0]
                    by_position = kept.setdefault(number, {}).setdefault(name, {})
                    by_position[int(step.positions[row])] = logits[row]
            start += count

    watch_steps(runner, self._buffer, label)


worker.WorkerCapture.attach = attach_and_keep
code = run([
    "capture", "--model", model_path, "--dataset", "demo", "--lake", str(folder / "lake"),
    "--run-id", "r", "--limit", "60", "--dtype", "float32", "--weight-precision", "f32",
    "--enforce-eager",
])  # fmt: skip
torch.save(
    {
        number: {
            request: torch.stack([rows[position] for position in sorted(rows)])
            for request, rows in by_request.items()
        }
        for number, by_request in kept.items()
    },
    folder / "inputs.pt",
)
sys.exit(code)
