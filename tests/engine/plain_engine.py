"""An engine that records nothing, compiled as vLLM does by default.

usage: plain_engine.py CACHE_ROOT MODEL PROMPT...; prints the token ids of each output as JSON.
"""

import json
import os
import sys

cache, model, *prompts = sys.argv[1:]
os.environ["VLLM_CACHE_ROOT"] = cache
os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"

from vllm import LLM, SamplingParams  # noqa: E402

llm = LLM(model, dtype="float32", kv_cache_memory_bytes=2**28, distributed_executor_backend="uni")
params = SamplingParams(max_tokens=16, temperature=0, ignore_eos=True)
outputs = llm.generate(prompts, params, use_tqdm=False)
worker = llm.llm_engine.model_executor.driver_worker.worker
assert not hasattr(worker, "tracer_hello")
print(json.dumps([list(output.outputs[0].token_ids) for output in outputs]))
