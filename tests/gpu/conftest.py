"""These tests need a CUDA device, torch, triton, numpy and pytest; nothing else, no vLLM.

Without a device they are not collected, and the summary says so.
"""

import pytest

try:
    import torch

    _HAS_CUDA = torch.cuda.is_available()
except ModuleNotFoundError:
    _HAS_CUDA = False

collect_ignore_glob = [] if _HAS_CUDA else ["test_*.py"]


def pytest_configure(config):
    # Triton 3.9 announces another default of 3.10 when it compiles; the kernel fuses nothing.
    config.addinivalue_line("filterwarnings", "ignore:TRITON_DEFAULT_FP_FUSION")


def pytest_terminal_summary(terminalreporter):
    if not _HAS_CUDA:
        terminalreporter.write_line("tests/gpu: not collected, torch finds no CUDA device")


@pytest.fixture(scope="session")
def device():
    return torch.device("cuda", torch.cuda.current_device())
