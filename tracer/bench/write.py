"""What writing a shard costs and how small it gets, beside pyarrow and physical floors.

A mode writes the same choices once in every round, in random order. CPU time is that of the whole
process, so threads of libraries count.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import pyarrow as pa

from tracer.bench.bare_files import arrow_layers, write_routing, write_with_pyarrow
from tracer.bench.code_length import code_bytes
from tracer.bench.floor import byte_planes
from tracer.bench.loads import Spent, Stopwatch
from tracer.bench.made_lake import begin_run, request_rows
from tracer.bench.made_routing import MadeModel, MadeRouting, make_routing
from tracer.bench.ratios import Ratio, paired_ratio
from tracer.store.shard import ShardFile, ShardWriter

__all__ = ["MODES", "Sizes", "WriteCost", "measure_write"]

# lake: all files of a shard and their commit; sums: `routing` and both rollups; rows: `routing`
# alone; pyarrow: the same `routing`, from tables made before. What nobody goes below: zstd, the
# recorded bytes of equal place, layer by layer, compressed at the lake's level; copy, the records
# copied once.
MODES = ("lake", "sums", "rows", "pyarrow", "zstd", "copy")

_RUN = "bench"
_ID_BYTES_RAW, _WEIGHT_BYTES_RAW = 1, 4
_ZSTD_LEVEL = 1


@dataclass(frozen=True, slots=True)
class Sizes:
    """Bytes of one shard, its tokens times layers being ``num_rows``.

    files: by table, `requests` included; pyarrow: of pyarrow's `routing`
    zstd: recorded ids and weights after zstd, byte planes apart; code: of the same under an
        adaptive order-0 coder
    """

    num_rows: int
    files: dict[str, int]
    pyarrow: int
    zstd: int
    code: float

    def per_row(self, num_bytes: float) -> float:
        """Bytes of a token and layer."""
        return num_bytes / self.num_rows


@dataclass(frozen=True, slots=True)
class WriteCost:
    """Time of each round by mode, and sizes."""

    model: MadeModel
    num_tokens: int
    num_requests: int
    num_choices: int
    spent: dict[str, list[Spent]]
    sizes: Sizes

    def mchoices_per_s(self, mode: str) -> float:
        """Million choices in a second of one core, by the median round."""
        return self.num_choices / 1e6 / median(spent.cpu for spent in self.spent[mode])

    def speed(self, mode: str, against: str) -> Ratio:
        """CPU time of ``against`` over that of ``mode``: above 1, ``mode`` is faster."""
        return paired_ratio(*([s.cpu for s in self.spent[name]] for name in (against, mode)))

    def rollups_of(self, mode: str) -> Ratio:
        """CPU time that rollups add to `routing`, over that of ``mode``."""
        pairs = zip(self.spent["sums"], self.spent["rows"], strict=True)
        added = [both.cpu - rows.cpu for both, rows in pairs]
        return paired_ratio(added, [spent.cpu for spent in self.spent[mode]])

    @property
    def raw_bytes_per_row(self) -> int:
        """A byte for an id and four for a weight, no keys."""
        return self.model.top_k * (_ID_BYTES_RAW + _WEIGHT_BYTES_RAW)


def measure_write(
    model: MadeModel, num_tokens: int, rounds: int, folder: Path, note: Callable[[str], None]
) -> WriteCost:
    """Write ``num_tokens`` made-up tokens in every mode and round, into a lake in ``folder``."""
    note(f"making {num_tokens:,} tokens")
    made = make_routing(model, num_tokens)
    trial = _Trial(made, folder)
    trial.round(MODES)  # loops are compiled, libraries loaded, sizes noted
    spent: dict[str, list[Spent]] = {mode: [] for mode in MODES}
    order = random.Random(0)
    for number in range(rounds):
        note(f"round {number + 1} of {rounds}")
        for mode, one in trial.round(order.sample(MODES, len(MODES))).items():
            spent[mode].append(one)
    requests = len(made.rows.requests)
    return WriteCost(model, num_tokens, requests, made.num_choices, spent, trial.sizes())


class _Trial:
    """Turns of the modes with one made-up shard."""

    def __init__(self, made: MadeRouting, folder: Path) -> None:
        self._made = made
        self._experts = made.model.num_experts
        self._folder = folder
        self._run = begin_run(folder / "lake", made.model, _RUN)
        self._writer = ShardWriter(self._run.lake.storage, _RUN, self._experts, "bf16")
        self._tables = arrow_layers(made.batch(0), self._experts)
        choices = list(made.rows.choices(self._experts))
        self._planes = [
            plane.tobytes()
            for ids, weights in choices
            for plane in byte_planes(ids, weights, self._experts)
        ]
        self._code = sum(code_bytes(ids, weights) for ids, weights in choices)
        self._copy = np.zeros_like(made.block)
        self._files: dict[str, int] = {}
        self._pyarrow_bytes = self._zstd_bytes = 0

    def round(self, modes: Sequence[str]) -> dict[str, Spent]:
        """Time of one turn of each mode."""
        turns = {
            "lake": self._write_lake,
            "sums": self._write_sums,
            "rows": self._write_rows,
            "pyarrow": self._write_pyarrow,
            "zstd": self._compress,
            "copy": self._copy_block,
        }
        return {mode: turns[mode]() for mode in modes}

    def sizes(self) -> Sizes:
        """Of what the last turns wrote."""
        rows = self._made.num_choices // self._made.model.top_k
        return Sizes(rows, self._files, self._pyarrow_bytes, self._zstd_bytes, self._code)

    def _write_lake(self) -> Spent:
        batch = self._run.next_batch
        rows = self._made.batch(batch)
        described = request_rows(rows.requests)
        watch = Stopwatch()
        files = self._writer.write(f"{batch:06d}-w0", rows)
        total = self._run.commit(batch, files, described)
        spent = watch.read()
        self._run.next_batch += 1
        self._files = {file.table: file.size for file in files}
        self._files["requests"] = total - sum(self._files.values())
        return spent

    def _write_sums(self) -> Spent:
        rows = self._made.batch(0)
        watch = Stopwatch()
        files = self._writer.write("sums", rows, tokens=False)
        spent = watch.read()
        self._remove(files)
        return spent

    def _write_rows(self) -> Spent:
        rows = self._made.batch(0)
        watch = Stopwatch()
        file = write_routing(self._run.lake.storage, rows, self._experts)
        spent = watch.read()
        self._remove([file])
        return spent

    def _write_pyarrow(self) -> Spent:
        path = self._folder / "pyarrow.parquet"
        watch = Stopwatch()
        write_with_pyarrow(path, self._tables)
        spent = watch.read()
        self._pyarrow_bytes = path.stat().st_size
        return spent

    def _compress(self) -> Spent:
        codec = pa.Codec("zstd", compression_level=_ZSTD_LEVEL)
        watch = Stopwatch()
        packed = [codec.compress(plane) for plane in self._planes]
        spent = watch.read()
        self._zstd_bytes = sum(part.size for part in packed)
        return spent

    def _copy_block(self) -> Spent:
        watch = Stopwatch()
        np.copyto(self._copy, self._made.block)
        return watch.read()

    def _remove(self, files: Sequence[ShardFile]) -> None:
        for file in files:
            self._run.lake.storage.remove(f"{file.table}/{file.path}")
