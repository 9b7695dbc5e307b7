"""Reads the lake with SQL and answers questions about it."""
