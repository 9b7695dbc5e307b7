"""What a capture costs: compute time beside an engine that is not captured, and memory."""
