"""``tracer`` with small batches in the processes of Ray that it asks for."""

import sys

import ray

from tracer.cli import run

if __name__ == "__main__":
    ray.init(
        log_to_driver=False,
        logging_level="error",
        runtime_env={"worker_process_setup_hook": "tests.cluster.small_batches.setup"},
    )
    sys.exit(run(sys.argv[1:]))
