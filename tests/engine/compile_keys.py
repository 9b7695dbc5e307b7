"""Prints vLLM's compile-cache key of a plain engine, and of captures with recording options.

usage: compile_keys.py MODEL OPTIONS.json, a list of fields of ``RecordOptions``
"""

import json
import sys

from vllm.engine.arg_utils import EngineArgs

from tracer.capture.engine_setup import configure
from tracer.capture.record_options import RecordOptions

model, options = sys.argv[1], json.loads(sys.argv[2])
plain = EngineArgs(model=model, enable_prefix_caching=False).create_engine_config()
captures = [configure(model, [], RecordOptions(**fields)) for fields in options]
print(json.dumps([config.compute_hash() for config in (plain, *captures)]))
