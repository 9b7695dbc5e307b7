"""Captures bundled prompts of a checkpoint whose routers are ``mlp.gate``, keeping their logits.

usage: capture_router_inputs.py MODEL FOLDER
Writes FOLDER/lake and FOLDER/inputs.pt: layer -> request -> router logits [n, E], computed here
in float32 as input x router weight. The weight comes from the checkpoint: the CPU engine packs
its own copy into another layout.
"""

import sys
from pathlib import Path

import torch
from capture_gate_inputs import main  # beside this file, where the fork server's path begins
from safetensors.torch import load_file

model, folder = sys.argv[1], Path(sys.argv[2])
code = main(
    folder, "--model", model, "--dataset", "demo", "--lake", str(folder / "lake"),
    "--run-id", "r", "--limit", "60", "--dtype", "float32", "--weight-precision", "f32",
    "--enforce-eager",
)  # fmt: skip
weights = load_file(Path(model) / "model.safetensors")
logits = {
    layer: {
        name: rows @ weights[f"model.layers.{layer}.mlp.gate.weight"].T for name, rows in of.items()
    }
    for layer, of in torch.load(folder / "gate_inputs.pt")["inputs"].items()
}
torch.save(logits, folder / "inputs.pt")
sys.exit(code)
