"""The compiled loops against plain Python, and what becomes of them where no cache can be kept."""

import dataclasses
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tracer.errors import DamagedDataError
from tracer.store import kernels
from tracer.store.choices import sort_choices
from tracer.store.rollup import PHASES, Rollup
from tracer.store.shard_rows import ShardRows, TracedRequest

WEIGHTS = (0.0, -0.0, 0.25, 0.5, -0.5, 1.0, 3e38, -1e-38)


def random_rows(seed, num_experts, top_k, lengths, domains):
    """Requests of these lengths in two layers; few different weights, so that many are equal."""
    rng = np.random.default_rng(seed)
    count = sum(lengths)
    order = np.argsort(rng.random((count, 2, num_experts)), axis=-1)[..., :top_k]
    weights = rng.choice(np.array(WEIGHTS, np.float32), size=order.shape)
    requests, positions = [], []
    for number, length in enumerate(lengths):
        tokens = np.zeros(length + 3, np.int32)
        prompt = int(rng.integers(1, length + 2))
        name = f"d{rng.integers(domains)}"
        requests.append(TracedRequest(f"q{number}", name, prompt, tokens, length))
        positions.append(np.sort(rng.choice(length + 2, length, replace=False)))
    return ShardRows(
        (1, 4),
        requests,
        np.concatenate(positions).astype(np.int32),
        order.astype(np.int16),
        weights,
    )


def sorted_in_python(ids, weights):
    """By descending weight, +0.0 before -0.0, then ascending id."""

    def key(choice):
        return -choice[1], -math.copysign(1, choice[1]), choice[0]

    rows = [sorted(zip(*row, strict=True), key=key) for row in zip(ids, weights, strict=True)]
    return [[list(part) for part in zip(*row, strict=True)] for row in rows]


SHAPES = [
    (1, 1, (1,), 1),
    (2, 1, (3, 1), 2),
    (16, 4, (5, 0, 30, 1), 3),
    (40, 16, (7, 2, 12), 1),
    (64, 8, (9,) * 12, 12),
    (300, 3, (4, 4, 50), 2),
]


@pytest.mark.parametrize(
    ("shape", "ids"),
    [
        *((shape, np.int16) for shape in SHAPES),
        *((shape, np.uint8) for shape in SHAPES if shape[0] <= 256),
    ],
)
@pytest.mark.parametrize("bits", [False, True], ids=["float32", "bfloat16"])
def test_choices_are_sorted_as_python_sorts_them(shape, bits, ids):
    rows = random_rows(0, *shape)
    weights = rows.gate_weights
    if bits:
        weights = (weights.view(np.uint32) >> 16).astype(np.uint16)
    rows = dataclasses.replace(rows, expert_ids=rows.expert_ids.astype(ids), gate_weights=weights)
    exact = (weights.astype(np.uint32) << 16).view(np.float32) if bits else weights
    for index, (found_ids, found_weights) in enumerate(rows.choices(shape[0])):
        expected = sorted_in_python(rows.expert_ids[:, index].tolist(), exact[:, index].tolist())
        assert found_ids.tolist() == [row[0] for row in expected]
        assert repr(found_weights.tolist()) == repr([row[1] for row in expected])
        assert (found_ids.dtype, found_weights.dtype) == (np.int16, np.float32)


def test_an_engine_may_look_at_what_every_module_holds():
    """As vLLM does when it starts on a CPU, after another engine's shards were written."""
    handles = 0
    for module in list(sys.modules.values()):
        for value in list(vars(module).values()):
            if type(value).__name__ == "_lib_wrapper":
                handles += 1
                assert not hasattr(value, "__dict__")
    assert handles > 0


def test_no_rows_are_sorted_into_no_rows():
    ids, weights = sort_choices(np.empty((0, 2, 4), np.uint8), np.empty((0, 2, 4), np.uint16), 16)
    assert (ids.shape, weights.shape) == ((2, 0, 4), (2, 0, 4))


@pytest.mark.parametrize(
    ("ids", "weights"),
    [
        ((0, 4), (0.5, 0.25)),
        ((-1, 1), (0.5, 0.25)),
        ((2, 2), (0.5, 0.25)),
        ((2, 1), (math.nan, 0.25)),
        ((2, 1), (0.5, -math.inf)),
    ],
)
def test_what_contradicts_itself_is_not_sorted(ids, weights):
    """Of four experts; in the last of three rows, and in one row alone."""
    good = [(0, 1), (1, 0)]
    for before in (good, []):
        all_ids = np.array([*before, ids], np.int16)[:, None]
        all_weights = np.array([*[(0.5, 0.5)] * len(before), weights], np.float32)[:, None]
        assert sort_choices(all_ids, all_weights, 4) is None


def test_the_first_layer_that_is_wrong_is_named():
    """Layers are sorted together: a number that is not finite in the first comes before an id."""
    rows = random_rows(1, 16, 4, (3, 3), 1)
    weights, ids = rows.gate_weights.copy(), rows.expert_ids.copy()
    weights[5, 0, 1] = np.nan
    ids[0, 1, 0] = 99
    broken = dataclasses.replace(rows, gate_weights=weights, expert_ids=ids)
    with pytest.raises(DamagedDataError, match="request 'q1' has a gate weight that is not"):
        list(broken.choices(16))


def sums_in_python(rows, ids, weights):
    """(request, phase, expert) -> count, sum, sum of squares, least, largest; row by row."""
    cells, row = {}, 0
    for number, request in enumerate(rows.requests):
        for position in rows.positions[row : row + request.num_rows].tolist():
            last = position == request.num_prompt_tokens - 1
            phase = "generated" if position >= request.num_prompt_tokens else "prompt"
            for at in [phase, "last-prompt"] if last else [phase]:
                for expert, weight in zip(ids[row].tolist(), weights[row].tolist(), strict=True):
                    count, total, square, low, high = cells.get(
                        (number, at, expert), (0, 0.0, 0.0, math.inf, -math.inf)
                    )
                    cells[number, at, expert] = (
                        count + 1,
                        total + weight,
                        square + weight * weight,
                        min(low, weight),
                        max(high, weight),
                    )
            row += 1
    return cells


@pytest.mark.parametrize("shape", SHAPES)
def test_sums_are_those_of_python(shape):
    """Exactly so by request: sums add in the order of the rows."""
    rows = random_rows(2, *shape)
    rows = dataclasses.replace(rows, gate_weights=np.clip(rows.gate_weights, -1, 1))
    rollup = Rollup(rows, shape[0])
    all_cells = []
    for ids, weights in rows.choices(shape[0]):
        cells = sums_in_python(rows, ids, weights)
        all_cells.append(cells)
        usage = rollup.add(ids, weights)
        found, at = {}, 0
        for (request, phase, _), length in zip(
            rollup.groups.tolist(), usage.lengths.tolist(), strict=True
        ):
            for entry in range(at, at + length):
                expert = int(usage.expert_ids[entry])
                found[request, PHASES[phase], expert] = (
                    int(usage.num_choices[entry]),
                    float(usage.weight_sum[entry]),
                )
            at += length
        assert at == len(usage.expert_ids)
        assert found == {key: value[:2] for key, value in cells.items()}

    by_domain = rollup.by_domain()
    groups = np.repeat(np.arange(by_domain.lengths.size), by_domain.lengths.ravel())
    columns = list(np.unravel_index(groups, by_domain.lengths.shape))
    columns += [getattr(by_domain, field.name) for field in dataclasses.fields(by_domain)[1:]]
    entries = list(zip(*(column.tolist() for column in columns), strict=True))
    assert [entry[:4] for entry in entries] == sorted(entry[:4] for entry in entries)
    found = {(n, rollup.domains[d], PHASES[p], e): tuple(rest) for n, d, p, e, *rest in entries}
    expected = {}
    for layer, cells in enumerate(all_cells):
        for (request, phase, expert), value in sorted(cells.items(), key=lambda cell: cell[0][0]):
            key = (layer, rows.requests[request].domain, phase, expert)
            old = expected.get(key, (0, 0.0, 0.0, math.inf, -math.inf))
            sums = [a + b for a, b in zip(old[:3], value[:3], strict=True)]
            expected[key] = (*sums, min(old[3], value[3]), max(old[4], value[4]))
    assert found.keys() == expected.keys()
    for key, value in found.items():
        assert value == pytest.approx(expected[key], rel=1e-15, abs=0)


@pytest.mark.parametrize("bits", [4, 9, 13, 16])
@pytest.mark.parametrize("count", [0, 1, 7, 300])
def test_numbers_are_packed_without_gaps(bits, count):
    numbers = np.random.default_rng(bits).integers(0, 1 << bits, count).astype(np.uint16)
    packed = np.zeros(-(-count * bits // 8), np.uint8)
    kernels.pack_bits(numbers, bits, packed)
    whole = sum(int(number) << bits * place for place, number in enumerate(numbers.tolist()))
    assert packed.tobytes() == whole.to_bytes(len(packed), "little")


def test_values_are_numbered_in_their_order():
    values = np.array([9, 2, 2, 0, 65_534, 9], np.int32)
    places, numbers = np.zeros(65_535, np.uint16), np.empty(6, np.uint16)
    kernels.number_values(values, places, numbers)
    assert np.flatnonzero(places).tolist() == [0, 2, 9, 65_534]
    assert numbers.tolist() == [2, 1, 1, 0, 3, 2]


@pytest.mark.parametrize("bits", [np.uint32, np.uint64])
def test_bytes_are_split_from_the_first_one_on(bits):
    numbers = np.random.default_rng(0).integers(0, 1 << 31, 77).astype(bits) * bits(2)
    size = numbers.itemsize
    planes = np.zeros((size, 77), np.uint8)
    kernels.split_bytes(numbers, 1, planes)
    expected = numbers.view(np.uint8).reshape(-1, size).T
    assert planes[1:].tolist() == expected[1:].tolist()
    assert not planes[0].any()


SORT = """
import numpy as np
from tracer.store.choices import sort_choices
weights = np.array([[[0x3E80, 0x3F80]]], np.uint16)
ids, weights = sort_choices(np.array([[[1, 0]]], np.uint8), weights, 2)
print(ids.tolist(), weights.tolist())
"""


def sort_in_a_process(before="", **environment):
    done = subprocess.run(
        [sys.executable, "-c", before + SORT],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(kernels.__file__).parents[2],
        env={**os.environ, **environment},
    )
    assert done.stdout == "[[[0, 1]]] [[[1.0, 0.25]]]\n", done.stderr


def test_a_damaged_cache_is_passed_over(tmp_path):
    sort_in_a_process(NUMBA_CACHE_DIR=str(tmp_path))
    kept = [path for path in tmp_path.rglob("*") if path.suffix in {".nbi", ".nbc"}]
    assert kept
    for path in kept:
        path.write_bytes(b"")
    sort_in_a_process(NUMBA_CACHE_DIR=str(tmp_path))


def test_without_a_folder_for_the_cache_each_process_compiles(tmp_path):
    """Every place that numba would look at is a file."""
    blocked = tmp_path / "file"
    blocked.touch()
    sort_in_a_process(
        NUMBA_CACHE_DIR=str(blocked),
        NUMBA_CACHE_LOCATOR_CLASSES="UserProvidedCacheLocator",
    )


def test_a_full_disk_is_no_reason_to_stop(tmp_path):
    """A process that may write 100 bytes a file cannot keep what it compiled."""
    limit = (
        "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))"
    )
    sort_in_a_process(limit, NUMBA_CACHE_DIR=str(tmp_path))
