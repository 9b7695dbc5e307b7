"""An engine configured as for a capture, to the last setting, but for the one that asks for it.

Graphs are loaded from the compile cache that it is given.

usage: plain_engine.py CACHE_ROOT MODEL PROMPT [vLLM options]; prints the output's token ids.
"""

import json
import os
import runpy
import sys
from pathlib import Path

cache, model, prompt, *options = sys.argv[1:]
os.environ["VLLM_CACHE_ROOT"] = cache
runpy.run_path(str(Path(__file__).with_name("cached_graphs.py")))

from vllm import SamplingParams  # noqa: E402
from vllm.v1.engine.llm_engine import LLMEngine  # noqa: E402

from tracer.capture.engine_setup import configure  # noqa: E402
from tracer.capture.plugin import CONFIG_KEY  # noqa: E402
from tracer.capture.record_options import RecordOptions  # noqa: E402

config = configure(model, options, RecordOptions(weight_precision="f32"))
assert config.additional_config.pop(CONFIG_KEY)
engine = LLMEngine.from_vllm_config(config)
worker = engine.model_executor.driver_worker.worker
assert not hasattr(worker, "tracer_hello")
engine.add_request("r", prompt, SamplingParams(max_tokens=16, temperature=0, ignore_eos=True))
while engine.has_unfinished_requests():
    outputs = engine.step()
print(json.dumps(list(outputs[0].outputs[0].token_ids)))
