"""A real capture into a bucket, killed and resumed, is what one into a folder is."""

import os
import signal

import pytest

from tests.s3.conftest import place, server  # noqa: F401 - fixtures
from tracer.api import open_lake
from tracer.store.lake import Lake
from tracer.workflow.verify import verify_lake

pytestmark = pytest.mark.engine
KEYS = ["layer_id", "request_id", "position"]
SCRIPT = """
import os, signal, sys
import obstore
from tracer.capture import recording
from tracer.cli import run
from tracer.store import s3_lease

recording.SHARD_CHOICES, recording._POLL_SECONDS = 6000, 0
s3_lease.LEASE_SECONDS = 4.0
put, left = obstore.put, {puts}

def counted(store, name, *words, **options):
    global left
    left -= "/locks/" not in name
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return put(store, name, *words, **options)

obstore.put = counted
sys.exit(run(sys.argv[1:]))
"""


def options(model, lake):
    return [
        "capture", "--model", model, "--dataset", "demo", "--lake", lake, "--run-id", "r",
        "--enforce-eager", "--limit", "120", "--max-tokens", "8", "--ignore-eos",
        "--dtype", "float32", "--weight-precision", "f32", "--max-num-seqs", "16",
    ]  # fmt: skip


def test_a_killed_capture_into_a_bucket_is_whole_once_resumed(
    engine,
    planted_model,
    tmp_path,
    place,  # noqa: F811
):
    model = planted_model("olmoe")
    killed, resumed = tmp_path / "killed.py", tmp_path / "resumed.py"
    killed.write_text(SCRIPT.format(puts=16))
    resumed.write_text(SCRIPT.format(puts=-1))
    whole = engine.run(*options(model, tmp_path / "whole"))
    assert whole.exit_code == 0, whole.stderr

    first = engine.run(*options(model, place), code=killed, env=aws())
    assert first.exit_code == -signal.SIGKILL, first.stderr
    done = len(Lake.open(place).request_status("r"))
    assert 0 < done < 120
    second = engine.run(*options(model, place), code=resumed, env=aws())

    assert second.exit_code == 0, second.stderr
    assert "resuming" in second.stderr
    lake = Lake.open(place)
    assert verify_lake(lake, None, repair=False, checked=lambda _: None).faults == []
    frames = [
        open_lake(one).scan("routing").drop("run_id").sort(KEYS).collect()
        for one in (place, tmp_path / "whole")
    ]
    assert frames[0].select(KEYS).equals(frames[1].select(KEYS))
    # Other batches, so the last bits of a weight may differ.
    gaps = (frames[0]["gate_weights"].explode() - frames[1]["gate_weights"].explode()).abs()
    assert gaps.max() < 1e-5
    same = frames[0]["expert_ids"].list.sort() == frames[1]["expert_ids"].list.sort()
    assert same.mean() > 0.999
    assert "a-secret" not in first.stderr + second.stderr + second.stdout


def aws():
    """The server, as the test's environment names it."""
    return {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
