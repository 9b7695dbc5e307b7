"""The status as Prometheus reads it. On a real server: test_serve_controls.py."""

import subprocess
import sys
import time

import pytest

pytest.importorskip("prometheus_client", reason="comes with vLLM: make setup")
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from tracer.live.metrics import StatusCollector
from tracer.live.status import Counts, write_status


def scraped(folder):
    registry = CollectorRegistry()
    registry.register(StatusCollector(folder))
    text = generate_latest(registry).decode()
    samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            samples[sample.name, *sorted(sample.labels.items())] = sample.value
    return samples


def test_counts_by_outcome_and_reason(tmp_path):
    counts = Counts(seen=20, chosen=9, recorded=5, tokens=70, bytes_written=8, queue_bytes=3)
    counts.drop("queue_full", 2)
    counts.drop("aborted")
    counts.leave_out("declined")
    counts.refuse_value("not_kept")
    write_status(tmp_path, counts)
    found = scraped(tmp_path)
    recorded = ("tracer_requests_total", ("outcome", "recorded"), ("reason", ""))
    dropped = ("tracer_requests_total", ("outcome", "dropped"), ("reason", "queue_full"))
    left_out = ("tracer_requests_total", ("outcome", "left_out"), ("reason", "declined"))
    assert (found[recorded], found[dropped], found[left_out]) == (5, 2, 1)
    assert found["tracer_requests_seen_total",] == 20
    assert found["tracer_requests_pending",] == 1
    assert found["tracer_refused_values_total", ("reason", "not_kept")] == 1
    assert (found["tracer_tokens_total",], found["tracer_written_bytes_total",]) == (70, 8)
    assert (found["tracer_queue_bytes",], found["tracer_recording",]) == (3, 1)
    assert (found["tracer_up",], found["tracer_error",]) == (1, 0)


def test_no_worker_and_a_damaged_status_are_zero_and_nothing_else(tmp_path):
    assert scraped(tmp_path) == {("tracer_up",): 0}
    (tmp_path / "status.json").write_text("{")
    assert scraped(tmp_path) == {("tracer_up",): 0}


def test_counts_of_a_worker_that_ended_are_not_shown(tmp_path, monkeypatch):
    write_status(tmp_path, Counts(seen=9))
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 60)
    assert scraped(tmp_path) == {("tracer_up",): 0}


def test_an_error_is_a_number_here_not_its_words(tmp_path):
    write_status(tmp_path, Counts(last_error="disk of tenant acme"))
    registry = CollectorRegistry()
    registry.register(StatusCollector(tmp_path))
    text = generate_latest(registry).decode()
    assert "tracer_error 1.0" in text
    assert "acme" not in text


SEVERAL_SERVERS = """
import sys
from pathlib import Path
from prometheus_client import Counter, generate_latest
from tracer.live.metrics import register_metrics
from tracer.live.status import Counts, write_status
from vllm.v1.metrics.prometheus import get_prometheus_registry
register_metrics(Path(sys.argv[1]))
Counter("of_vllm", "Something else.").inc()
write_status(Path(sys.argv[1]), Counts(seen=9))  # now: imports may have taken longer than it holds
print(generate_latest(get_prometheus_registry()).decode())
"""


@pytest.mark.engine
@pytest.mark.parametrize("several", [False, True])
def test_vllm_registry_of_one_and_of_several_api_servers(tmp_path, several, monkeypatch):
    """Where several servers merge their metrics, vLLM makes a registry of its own."""
    if several:
        (tmp_path / "shared").mkdir()
        monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path / "shared"))
    words = [sys.executable, "-c", SEVERAL_SERVERS, str(tmp_path)]
    text = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    assert text.count("tracer_requests_seen_total 9.0") == 1
    assert text.count("of_vllm_total 1.0") == 1
