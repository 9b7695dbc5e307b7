"""The same rows from a compiled model, from separate engine processes, and from two workers."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.engine.conftest import HERE
from tests.engine.routing import agreement, rows_of

pytestmark = pytest.mark.engine


def capture_apart(folder, model, *options, **environment):
    """The real command in a process of its own, started as a user starts it."""
    done = subprocess.run(
        [
            sys.executable, "-m", "tracer", "capture", "--model", model, "--dataset", "demo",
            "--lake", folder / "lake", "--run-id", "r", "--max-tokens", "16", "--ignore-eos",
            "--dtype", "float32", "--weight-precision", "f32", *options,
        ],
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return folder / "lake"


def same_routing(lake, other):
    """Every key, every id set, weights to 1e-5."""
    rows, others = rows_of(lake), rows_of(other)
    assert rows.keys() == others.keys()
    for key, row in rows.items():
        same, difference = agreement(row, others[key])
        assert same.all(), key
        assert difference <= 1e-5
    return True


def test_two_tensor_parallel_processes_record_one_copy(captured, tmp_path):
    """A front end, an engine core and two workers: rank 0 alone records."""
    run = captured("olmoe")
    lake = capture_apart(
        tmp_path, run.model, "--tensor-parallel-size", "2", "--enforce-eager",
        VLLM_CPU_OMP_THREADS_BIND="nobind",
    )  # fmt: skip
    assert same_routing(run.lake, lake)


def test_a_compiled_model_records_the_same(captured, tmp_path):
    """Without --enforce-eager: traced as a whole by Dynamo, the recording operator inside.

    VLLM_CPU_CI_ENV keeps the tracing and leaves out code generation, which takes a minute.
    """
    run = captured("olmoe")
    lake = capture_apart(tmp_path, run.model, VLLM_CPU_CI_ENV="1")
    assert same_routing(run.lake, lake)


def test_an_engine_without_the_setting_is_left_alone(planted_model, tmp_path):
    """The plugin is loaded in every vLLM process and does nothing unless capture asks for it."""
    script = tmp_path / "plain.py"
    script.write_text(
        "import sys\n"
        "from vllm import LLM, SamplingParams\n"
        "llm = LLM(sys.argv[1], enforce_eager=True, max_model_len=256, dtype='float32',\n"
        "          kv_cache_memory_bytes=2**28, distributed_executor_backend='uni')\n"
        "out = llm.generate(['energy'], SamplingParams(max_tokens=2, temperature=0))\n"
        "assert len(out[0].outputs[0].token_ids) == 2\n"
        "worker = llm.llm_engine.model_executor.driver_worker\n"
        "assert 'tracer.capture.plugin' in sys.modules\n"
        "assert 'tracer.capture.worker' not in sys.modules\n"
        "assert not hasattr(worker, 'tracer_hello')\n"
        "print('untouched')\n"
    )
    done = subprocess.run(
        [sys.executable, script, planted_model("olmoe")],
        env={**os.environ, "OMP_NUM_THREADS": "1", "VLLM_ENABLE_V1_MULTIPROCESSING": "0"},
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(script).parent,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines()[-1] == "untouched"


def test_rows_are_restored_as_vllms_own_recorder_does(engine):
    """Data parallelism, gathered or not, with and without sequence parallelism: no devices."""
    done = engine.run(code=HERE / "restore_rows.py")
    assert done.exit_code == 0, done.stderr[-3000:]
    # 5 batches with 2, 2, 3, 4 and 2 ranks; gathered or not; 1, 2 or 4 shares.
    assert done.stdout.split() == [str(13 * 2 * 3), "layouts"]
