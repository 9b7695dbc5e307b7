"""``tracer capture`` with a compile cache of its own, from which graphs are loaded.

usage: compiled_capture.py CACHE_ROOT KEY OUTPUTS.json [tracer capture options]; with KEY "blind"
vLLM's key forgets ``additional_config``, with "whole" it is as it is.
"""

import os
import runpy
import sys
from pathlib import Path

os.environ["VLLM_CACHE_ROOT"], key = sys.argv.pop(1), sys.argv.pop(1)
HERE = Path(__file__).parent

runpy.run_path(str(HERE / "cached_graphs.py"))

if key == "blind":
    from vllm.config import VllmConfig

    compute_hash = VllmConfig.compute_hash

    def compute_blind_hash(self):
        kept, self.additional_config = self.additional_config, {}
        try:
            return compute_hash(self)
        finally:
            self.additional_config = kept

    VllmConfig.compute_hash = compute_blind_hash

runpy.run_path(str(HERE / "capture_keeping_outputs.py"), run_name="__main__")
