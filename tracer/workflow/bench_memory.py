"""Runs the measurement of `tracer bench memory`."""

import sys
import tempfile
from pathlib import Path

from tracer.bench.memory import Held, Shape, measure_memory
from tracer.workflow.progress import CaptureProgress

__all__ = ["bench_memory"]


def bench_memory(tokens: int, layers: int, experts: int, top_k: int) -> Held:
    """Measure what recording holds over a run of made-up rows; progress goes to stderr."""
    progress = CaptureProgress(sys.stderr)
    with tempfile.TemporaryDirectory(prefix="tracer-bench-") as folder:
        return measure_memory(tokens, Shape(layers, experts, top_k), Path(folder), progress.note)
