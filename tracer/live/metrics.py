"""The counts of live capture on vLLM's own ``/metrics``.

The worker counts, in another process; the front end reads its status when it is scraped. So every
API server of an engine shows the same numbers, and nothing depends on how they share metrics.
"""

import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from prometheus_client import REGISTRY
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector, CollectorRegistry

from tracer.errors import InputError
from tracer.live.status import Counts, read_status

__all__ = ["StatusCollector", "register_metrics"]

_logger = logging.getLogger("vllm.moe_tracer")


class StatusCollector(Collector):
    """What a worker's status says, as metrics. No value comes from a request.

    Args:
        folder: of the status.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def describe(self) -> Iterable[Metric]:
        """Nothing: the status may not be there when this is registered."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Read the status. Without a worker only ``tracer_up`` is there, and 0."""
        try:
            counts = read_status(self._folder)
        except InputError:
            counts = None
        up = counts is not None and counts.is_current
        yield GaugeMetricFamily(
            "tracer_up", "Whether a worker of live capture wrote its status lately.", value=up
        )
        if counts is not None and up:
            yield from _families(counts)


def _families(counts: Counts) -> Iterator[Metric]:
    yield CounterMetricFamily(
        "tracer_requests_seen", "Requests that the engine began.", value=counts.seen
    )
    requests = CounterMetricFamily(
        "tracer_requests",
        "Requests by what became of them: recorded (in the lake), dropped, or left_out (not to be"
        " recorded).",
        labels=("outcome", "reason"),
    )
    requests.add_metric(("recorded", ""), counts.recorded)
    for outcome, reasons in (("dropped", counts.dropped), ("left_out", counts.left_out)):
        for reason, number in sorted(reasons.items()):
            requests.add_metric((outcome, reason), number)
    yield requests
    refused = CounterMetricFamily(
        "tracer_refused_values",
        "Labels and other values of requests that were not taken.",
        labels=("reason",),
    )
    for reason, number in sorted(counts.refused_values.items()):
        refused.add_metric((reason,), number)
    yield refused
    for name, text, number in (
        ("tracer_tokens", "Tokens of recorded requests.", counts.tokens),
        ("tracer_written_bytes", "Bytes written into the lake.", counts.bytes_written),
    ):
        yield CounterMetricFamily(name, text, value=number)
    for name, text, value in (
        ("tracer_requests_pending", "Chosen requests that run or wait.", counts.pending),
        ("tracer_queue_bytes", "Rows that wait to be written.", counts.queue_bytes),
        ("tracer_queue_limit_bytes", "How many of them may.", counts.queue_limit_bytes),
        ("tracer_recording", "Whether new requests are recorded.", counts.recording),
        ("tracer_rate", "Share of new requests that are recorded.", counts.rate),
        ("tracer_error", "Whether the status tells an error.", counts.last_error is not None),
        ("tracer_started_time_seconds", "When the worker began.", counts.started_at),
    ):
        yield GaugeMetricFamily(name, text, value=value)


def register_metrics(folder: Path) -> None:
    """Show the status of ``folder`` on the ``/metrics`` of this process, if it has one.

    A vLLM whose metrics cannot be reached serves and records without.
    """
    collector = StatusCollector(folder)
    REGISTRY.register(collector)
    try:
        from vllm.v1.metrics import prometheus

        _show_in_new_registries(prometheus, collector)
    except (ImportError, AttributeError) as error:
        _logger.warning("moe-tracer: no counts on /metrics of several API servers: %s", error)


def _show_in_new_registries(prometheus: Any, collector: StatusCollector) -> None:
    """Several API servers merge their metrics in a registry that vLLM makes when it is needed."""
    make: type[CollectorRegistry] = prometheus.CollectorRegistry

    class Registry(make):  # type: ignore[valid-type, misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.register(collector)

    prometheus.CollectorRegistry = Registry
