"""``tracer`` on a CPU engine that can run LoRA adapters on MoE models.

With LoRA enabled vLLM takes the Triton kernel for experts on every platform (0.32:
``fused_moe/oracle/unquantized.py``), and a CPU has no Triton. Here the CPU's kernel is taken, in a
class that may be given adapters of experts and ignores them: right for adapters of other modules.
The layers are wrapped for LoRA as they are on devices.

usage: lora_on_cpu.py [tracer arguments]
"""

import sys
from dataclasses import replace

from vllm.model_executor.layers.fused_moe import unquantized_fused_moe_method as method
from vllm.model_executor.layers.fused_moe.experts.lora_experts_mixin import LoRAExpertsMixin

from tracer.capture import lora
from tracer.cli import run

select = method.select_unquantized_moe_backend


def select_for_cpu(moe_config):
    backend, kernel = select(replace(moe_config, is_lora_enabled=False))
    return backend, type(kernel.__name__, (LoRAExpertsMixin, kernel), {})


method.select_unquantized_moe_backend = select_for_cpu
lora.refuse_without_kernel = lambda: None
sys.exit(run(sys.argv[1:]))
