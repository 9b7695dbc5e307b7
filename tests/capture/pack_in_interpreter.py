"""Prints as JSON how the Triton kernel differs from torch in Triton's interpreter.

A program of its own: whether Triton interprets or compiles is decided when it is imported.
"""

import json
import os

os.environ["TRITON_INTERPRET"] = "1"

from tests.gpu.pack_cases import compare

print(json.dumps(compare("cpu")))
