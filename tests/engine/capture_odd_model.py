"""Captures a model that was changed, after loading, into one that cannot be captured.

usage: capture_odd_model.py CASE MODEL [TRACER OPTION]...
The engine, its classes and the refusal are real; only the trait that no small CPU model has is
put on.
"""

import sys

from tracer.capture import worker
from tracer.cli import run

case, model_path, *options = sys.argv[1:]
attach = worker.WorkerCapture.attach


def monolithic(runner, _):
    """What vLLM answers for kernels that route inside, as TensorRT-LLM's do."""
    type(runner).is_monolithic = property(lambda _: True)


def foreign_router(runner, _):
    runner.router = object()


def same_layer(runner, _):
    type(runner).layer_id = property(lambda _: 0)


def fewer_choices(runner, index):
    if index == 0:
        runner.router.top_k -= 1


def fused_shared_experts(runner, _):
    runner.router.num_fused_shared_experts = 1


def hidden_gate(_, index):
    """No linear layer beside the experts has an output per expert."""
    if index == 0:
        for module in loaded.modules():
            if getattr(module, "output_size", None) == 16:
                module.output_size = 0


def attach_to_odd_model(self):
    """Change the loaded model, then let tracer look at it."""
    from vllm.model_executor.layers.fused_moe.layer import MoERunner

    model_runner = self._worker.model_runner
    if case == "foreign_model_runner":
        self._worker.model_runner = type("OtherRunner", (), {})()
    else:
        global loaded  # noqa: PLW0603
        loaded = model_runner.get_model()
        runners = [m for m in loaded.modules() if isinstance(m, MoERunner)]
        for index, runner in enumerate(runners):
            globals()[case](runner, index)
    attach(self)
    self._worker.model_runner = model_runner


worker.WorkerCapture.attach = attach_to_odd_model
sys.exit(
    run([
        "capture", "--model", model_path, "--dataset", "demo", "--limit", "1", "--lake", "lake",
        "--enforce-eager", *options,
    ])
)  # fmt: skip
