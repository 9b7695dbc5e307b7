"""Runs inside and around vLLM: hooks the routers, labels the rows, drives the engine."""
