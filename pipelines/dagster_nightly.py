"""The job of nightly.yaml by Dagster: `dagster dev -f pipelines/dagster_nightly.py`.

Its schedule is off until somebody turns it on. In dagster.yaml,
`concurrency: {runs: {max_concurrent_runs: 1}}` lets models take turns at the GPU.
"""

from pathlib import Path

from tracer.dagster import definitions

defs = definitions(Path(__file__).with_name("nightly.yaml"))
