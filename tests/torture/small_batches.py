"""``tracer`` with batches of a few thousand choices, so that a short capture commits often."""

import sys

if __name__ == "__main__":
    from tracer.capture import recording
    from tracer.cli import run

    recording.SHARD_CHOICES = 6000
    sys.exit(run(sys.argv[1:]))
