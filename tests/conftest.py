"""What every test may use. Under TRACER_REQUIRE_ALL=1 a skipped test fails."""

import importlib.util
import os
import shutil
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent


def pytest_collection_modifyitems(items):
    """Skip what needs a browser, systemd or an engine that is not there, saying what to install."""
    reasons = {
        "browser": None
        if shutil.which("chromium")
        else "needs a browser: apt-get install chromium",
        "systemd": None
        if shutil.which("systemd-analyze")
        else "needs systemd-analyze: apt-get install systemd",
        "engine": None if importlib.util.find_spec("vllm") else "needs vLLM: make setup",
    }
    for item in items:
        for marker, reason in reasons.items():
            if reason and item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    report = (yield).get_result()
    if report.skipped and os.environ.get("TRACER_REQUIRE_ALL") == "1":
        report.outcome = "failed"
        report.longrepr = f"skipped, but TRACER_REQUIRE_ALL=1: {report.longrepr}"


@pytest.fixture(scope="session")
def repository():
    """Top folder of the checkout."""
    return REPOSITORY
