"""Capture of live traffic: `vllm serve` with the plugin, switched on by ``TRACER_LIVE``."""
