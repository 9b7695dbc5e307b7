"""The trace lake: shards, rollups, commits, imports."""
