"""What processes of Ray's do first: batches of a few thousand choices, committed at once."""

__all__ = ["setup"]


def setup():
    from tracer.capture import recording

    recording.SHARD_CHOICES, recording._POLL_SECONDS = 6000, 0
