"""``tracer capture`` with a compile cache of its own.

usage: compiled_capture.py CACHE_ROOT OUTPUTS.json [tracer capture options]
"""

import os
import runpy
import sys
from pathlib import Path

os.environ["VLLM_CACHE_ROOT"] = sys.argv.pop(1)
runpy.run_path(str(Path(__file__).with_name("capture_keeping_outputs.py")), run_name="__main__")
