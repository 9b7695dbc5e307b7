"""What a worker and the plugin do where nothing can be recorded; without an engine."""

import os
from types import SimpleNamespace

import pytest

pytest.importorskip("vllm", reason="needs vLLM: make setup")

from tracer.live import plugin, worker
from tracer.live.config import LiveConfig
from tracer.live.status import read_status
from tracer.live.writer import LakeWriter


def make_worker(rank):
    runner = SimpleNamespace(get_model=lambda: None, max_num_tokens=8)
    parallel = SimpleNamespace(tensor_parallel_size=2)
    return SimpleNamespace(
        rank=rank, parallel_config=parallel, model_runner=runner, vllm_config=None, device="cpu"
    )


@pytest.fixture
def capture(tmp_path):
    made = []

    def make(rank=0, **options):
        config = LiveConfig(lake=str(tmp_path / "lake"), control=tmp_path / "control")
        made.append(worker.LiveCapture(make_worker(rank), config, options))
        return made[-1]

    yield make
    for one in made:
        one.end()


def test_where_the_first_rank_is_refused_no_peer_gathers(capture, tmp_path, monkeypatch):
    """It would wait for ever for the first rank, and serving with it."""
    joined = []
    monkeypatch.setattr(worker, "join_peers", lambda *_: joined.append(1))
    one, other = capture(0, refusal="no"), capture(1, refusal="no")
    one.begin()
    other.begin()
    assert joined == []
    assert "no" in read_status(tmp_path / "control").last_error
    capture(1).begin()
    assert joined == [1]


def test_a_peer_that_cannot_join_writes_no_status(capture, tmp_path):
    one = capture(1)
    one.begin()  # there is no model
    assert not one._keeper.is_alive()
    assert read_status(tmp_path / "control") is None


def test_an_error_of_the_status_is_over_when_it_can_be_written(capture, tmp_path):
    one = capture()
    (tmp_path / "control").write_text("in the way")
    one._write_status()
    assert one._counts.last_error
    (tmp_path / "control").unlink()
    one._write_status()
    assert one._counts.last_error is None
    (tmp_path / "control" / "status.json").unlink()
    (tmp_path / "control").rmdir()
    (tmp_path / "control").write_text("in the way")
    one._write_status()
    one._counts.last_error = "another"
    (tmp_path / "control").unlink()
    one._write_status()
    assert one._counts.last_error == "another"


def test_an_error_of_the_lake_is_over_when_the_same_work_succeeds():
    counts = SimpleNamespace(last_error=None)
    one = SimpleNamespace(_counts=counts, _failing={})
    one._note = lambda error: LakeWriter._note(one, error)
    one._is_over = lambda noted: LakeWriter._is_over(one, noted)
    files = []

    def tidy():
        files[0]

    LakeWriter._attempt(one, tidy)
    assert counts.last_error == "IndexError: list index out of range"
    files.append("there")
    LakeWriter._attempt(one, tidy)
    assert counts.last_error is None


def arguments(**changes):
    values = {"additional_config": None, "data_parallel_size": 1, "pipeline_parallel_size": 1}
    return SimpleNamespace(**(values | changes))


def test_a_vllm_that_is_not_known_is_served_and_not_recorded(monkeypatch, tmp_path):
    from vllm.engine.arg_utils import EngineArgs
    from vllm.v1.core.sched.scheduler import Scheduler

    create = EngineArgs.create_engine_config
    monkeypatch.setattr(plugin, "register_metrics", lambda _: None)
    monkeypatch.setattr(plugin, "_unknown", None)
    monkeypatch.setattr(EngineArgs, "create_engine_config", create)
    monkeypatch.setattr(os, "environ", {"TRACER_LIVE_LAKE": str(tmp_path)})
    monkeypatch.delattr(Scheduler, "_free_request")
    plugin.register_live()
    asked = arguments()
    plugin._ask_for_capture(asked)
    assert "_free_request" in asked.additional_config["moe_tracer"]["refusal"]
    monkeypatch.delattr(EngineArgs, "create_engine_config")
    plugin.register_live()


def test_arguments_that_are_not_known_are_served_and_not_recorded():
    asked = arguments()
    del asked.pipeline_parallel_size
    plugin._ask_for_capture(asked)
    assert "pipeline_parallel_size" in asked.additional_config["moe_tracer"]["refusal"]
    asked = arguments()
    plugin._ask_for_capture(asked)
    assert "refusal" not in asked.additional_config["moe_tracer"]


def test_a_full_temporary_folder_does_not_keep_a_server_from_recording(monkeypatch):
    from tests.live.traffic import EXPERTS, FORMAT, LAYERS
    from tracer.live.warm_up import warm_up
    from tracer.store.shard import ShardWriter

    asked = []

    def fail(*_):
        asked.append(1)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ShardWriter, "write", fail)
    warm_up(FORMAT, LAYERS, EXPERTS, "f32")
    assert asked == [1]
