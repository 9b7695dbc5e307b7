"""``tracer`` with batches of a few thousand choices, committed at once."""

import sys

if __name__ == "__main__":
    from tracer.capture import recording
    from tracer.cli import run

    recording.SHARD_CHOICES, recording._POLL_SECONDS = 6000, 0
    sys.exit(run(sys.argv[1:]))
