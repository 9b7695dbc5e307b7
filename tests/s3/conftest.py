"""A server that speaks S3 (moto's), buckets on it, and a bad one in between."""

import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from itertools import count
from pathlib import Path

import pytest

from tests.s3.bad_server import BadServer

SECRET = "a-secret-that-must-not-be-written"
_numbers = count()


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """Its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = (tmp_path_factory.mktemp("moto") / "log").open("wb")
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=log,
        stderr=log,
    )
    address = f"http://127.0.0.1:{port}"
    end = time.monotonic() + 120
    while not answers(address):
        assert process.poll() is None, Path(log.name).read_text()
        assert time.monotonic() < end
        time.sleep(0.2)
    yield address
    process.terminate()
    process.wait()
    log.close()


def answers(address):
    try:
        urllib.request.urlopen(f"{address}/moto-api/", timeout=5).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


@pytest.fixture
def place(server, monkeypatch):
    """URL of a lake to be, in a bucket of its own; the environment names the server."""
    bucket = f"lakes-{next(_numbers)}"
    request = urllib.request.Request(f"{server}/{bucket}", method="PUT")
    urllib.request.urlopen(request, timeout=10).close()
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_DEFAULT_REGION", "TRACER_S3_TIMEOUT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a-key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", server)
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    return f"s3://{bucket}/some/lake"


@pytest.fixture
def bad_server(server, monkeypatch, place):
    """``bad_server(rule)`` puts a bad server in front of the good one; see ``BadServer``."""
    started = []

    def start(rule):
        bad = BadServer(server, rule)
        started.append(bad)
        monkeypatch.setenv("AWS_ENDPOINT_URL", bad.address)
        return bad

    yield start
    for bad in started:
        bad.close()
