"""``tracer capture`` beside a witness of its own: what entered each gate in the same forward.

usage: capture_gate_inputs.py FOLDER [tracer capture options]
Writes FOLDER/gate_inputs.pt: {"inputs": layer -> request -> float32 [n, H], "tokens": request ->
token ids [n]}, rows by position. Nothing of tracer takes part: the gates are found from vLLM's
MoE runners, and the rows are named from the model runner's own batch.
"""

import json
import sys
from pathlib import Path

import torch
from vllm.model_executor.layers.fused_moe.layer import MoERunner
from vllm.model_executor.models.registry import ModelRegistry, _RegisteredModel
from vllm.v1.worker.gpu_worker import Worker

from tracer.cli import run

GATE_NAMES = ("gate", "router")
seen: dict[int, torch.Tensor] = {}  # layer -> router input of the current step
inputs: dict[int, dict[str, dict[int, torch.Tensor]]] = {}
tokens: dict[str, dict[int, int]] = {}


def gates(model):
    """(layer, module that maps router inputs to logits) for every MoE layer."""
    for name, module in model.named_modules():
        if isinstance(module, MoERunner):
            block = model.get_submodule(name.rpartition(".")[0])
            own = (getattr(block, gate, None) for gate in GATE_NAMES)
            yield module.layer_id, module.gate or next(g for g in own if g is not None)


def watch(runner):
    """Keep every gate's input and, after each step, name its rows."""
    for layer, gate in gates(runner.get_model()):

        def keep(module, arguments, layer=layer):
            hidden = arguments[0]
            seen[layer] = hidden.detach().reshape(-1, hidden.shape[-1]).float().clone()

        gate.register_forward_pre_hook(keep)
    execute_model = runner.execute_model

    def execute_and_keep(scheduler_output, *args, **kwargs):
        seen.clear()
        output = execute_model(scheduler_output, *args, **kwargs)
        start = 0
        for request in runner.input_batch.req_ids[: runner.input_batch.num_reqs]:
            count = scheduler_output.num_scheduled_tokens.get(request, 0)
            name = request.rsplit("-", 1)[0]
            for row in range(start, start + count):
                position = int(runner.positions[row])
                tokens.setdefault(name, {})[position] = int(runner.input_ids.gpu[row])
                for layer, hidden in seen.items():
                    inputs.setdefault(layer, {}).setdefault(name, {})[position] = hidden[row]
            start += count
        return output

    runner.execute_model = execute_and_keep


def load_and_watch(self, *args, _load_model=Worker.load_model, **kwargs):
    result = _load_model(self, *args, **kwargs)
    watch(self.model_runner)
    return result


def register_loaded(architecture):
    """vLLM inspects a class it has not met in a process of its own (15 s); this one is loaded."""
    lazy = ModelRegistry.models.get(architecture)
    if lazy is not None:
        ModelRegistry.models[architecture] = _RegisteredModel.from_model_cls(lazy.load_model_cls())


def main(folder, *options):
    Worker.load_model = load_and_watch
    model = Path(options[options.index("--model") + 1])
    for architecture in json.loads((model / "config.json").read_text())["architectures"]:
        register_loaded(architecture)
    register_loaded("TransformersMoEForCausalLM")
    code = run(["capture", *options])
    rows = {
        "inputs": {
            layer: {name: torch.stack([p[n] for n in sorted(p)]) for name, p in requests.items()}
            for layer, requests in inputs.items()
        },
        "tokens": {name: [p[n] for n in sorted(p)] for name, p in tokens.items()},
    }
    torch.save(rows, Path(folder) / "gate_inputs.pt")
    return code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
