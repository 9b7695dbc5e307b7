"""Memory of writing and merging many small requests, by the measurement that anyone can rerun."""

import importlib.util
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "run_memory.py"


def test_a_thousand_short_requests_stay_within_the_formula():
    """4 batches of 250 requests of 20 tokens: 640,000 choices each, merged to a file a table."""
    spec = importlib.util.spec_from_file_location("run_memory", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    found = script.measure((1000, 20, 250), 1)
    assert (found["requests"], found["choices"], found["batches"]) == (1000, 2_560_000, 4)
    assert (found["files_before"], found["files_after"]) == (20, 5)
    # What delta-rs and pyarrow keep beside it does not grow with the run. All choices as they are
    # read, ids and weights, would be 15 MB more in a merge that holds every layer at once.
    assert found["write_peak_bytes"] < found["write_formula_bytes"] + 40_000_000
    assert found["compact_peak_bytes"] < 80_000_000
