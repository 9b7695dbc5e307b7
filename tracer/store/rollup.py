"""Sums of choices: per request and phase (`usage`), per domain and phase (`usage_by_domain`).

Made layer by layer from the arrays that become the rows of `routing`, after weights took their
stored precision, so that rollups and rows agree. All requests of a shard are summed at once:
every choice adds to the cell of its request, phase and expert.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tracer.store.shard_rows import ShardRows

__all__ = ["PHASES", "DomainUsage", "RequestUsage", "Rollup"]

# In the order of `usage`. The last prompt token is counted apart first, then added to prompt.
PHASES = ("prompt", "last-prompt", "generated")
_PROMPT, _LAST, _GENERATED = range(3)
# Cells summed at a time, so that many requests of many experts do not fill the memory.
_MAX_CELLS = 300_000
# How counts, sums, sums of squares, least and largest weights are joined, and what they begin at.
_MERGE: Sequence[tuple[np.ufunc, float]] = (
    (np.add, 0),
    (np.add, 0),
    (np.add, 0),
    (np.minimum, np.inf),
    (np.maximum, -np.inf),
)


@dataclass(frozen=True, slots=True)
class RequestUsage:
    """`usage` of one layer: m rows, lists as values and lengths; see ``Rollup.groups``.

    lengths: int64 [m], chosen experts of each row; the other arrays hold their values in order:
    expert_ids int16, ascending in a row; num_choices int32; weight_sum float64
    """

    lengths: npt.NDArray[np.int64]
    expert_ids: npt.NDArray[np.int16]
    num_choices: npt.NDArray[np.int32]
    weight_sum: npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class DomainUsage:
    """`usage_by_domain` of one layer, one entry per cell with choices.

    domain: index into ``Rollup.domains``; phase: index into ``PHASES``
    """

    domain: npt.NDArray[np.int64]
    phase: npt.NDArray[np.int64]
    expert_ids: npt.NDArray[np.int16]
    num_choices: npt.NDArray[np.int64]
    weight_sum: npt.NDArray[np.float64]
    weight_sq_sum: npt.NDArray[np.float64]
    weight_min: npt.NDArray[np.float32]
    weight_max: npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class _Block:
    """Some requests, ``first`` on, and the rows that are theirs.

    cells: int64 [rows * top_k]; the cell of a choice is this + its expert id
    """

    first: int
    count: int
    rows: slice
    cells: npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class _Cells:
    """Sums of cells that have choices.

    at: int64, request number * phases * experts + phase * experts + expert, ascending
    values: counts, sums, sums of squares, least and largest weights
    """

    at: npt.NDArray[np.int64]
    values: Sequence[npt.NDArray[Any]]


class Rollup:
    """Sums the layers of one shard, one at a time.

    domains: names, ascending
    groups: int64 [m, 3]: request number, phase (index into ``PHASES``) and number of tokens of
        every row that `usage` has in each layer
    """

    def __init__(self, rows: ShardRows, num_experts: int) -> None:
        requests, counts = rows.requests, rows.row_counts
        self._shape = (-1, len(PHASES), num_experts)
        self._size = len(PHASES) * num_experts
        prompt = np.repeat([request.num_prompt_tokens for request in requests], counts)
        phase = np.full(len(prompt), _PROMPT)
        phase[rows.positions == prompt - 1] = _LAST
        phase[rows.positions >= prompt] = _GENERATED

        request = np.repeat(np.arange(len(requests)), counts)
        group = request * len(PHASES) + phase
        tokens = np.bincount(group, minlength=len(requests) * len(PHASES))
        tokens = tokens.reshape(-1, len(PHASES))
        tokens[:, _PROMPT] += tokens[:, _LAST]
        self.groups = np.column_stack([*np.nonzero(tokens), tokens[tokens > 0]])

        self.domains: Sequence[str] = sorted({request.domain for request in requests})
        number = {domain: index for index, domain in enumerate(self.domains)}
        self._domain = np.array([number[request.domain] for request in requests])

        top_k = rows.expert_ids.shape[-1]
        ends = np.cumsum(counts)
        each = max(1, _MAX_CELLS // self._size)
        self._blocks = []
        for first in range(0, len(requests), each):
            last = min(first + each, len(requests))
            part = slice(int(ends[first] - counts[first]), int(ends[last - 1]))
            cells = (group[part] - first * len(PHASES)) * num_experts
            self._blocks.append(_Block(first, last - first, part, np.repeat(cells, top_k)))

    def add(
        self, expert_ids: npt.NDArray[np.int16], gate_weights: npt.NDArray[np.float32]
    ) -> tuple[RequestUsage, DomainUsage]:
        """Sums of one layer; both arguments [n, top_k]."""
        parts = [
            self._sum(block, expert_ids[block.rows], gate_weights[block.rows])
            for block in self._blocks
        ]
        values = zip(*(part.values for part in parts), strict=True)
        cells = _Cells(
            np.concatenate([part.at for part in parts]),
            [np.concatenate(column) for column in values],
        )
        return self._by_request(cells), self._by_domain(cells)

    def _sum(
        self,
        block: _Block,
        expert_ids: npt.NDArray[np.int16],
        gate_weights: npt.NDArray[np.float32],
    ) -> _Cells:
        # ufunc.at takes two thirds of the time of a bincount with weights.
        size = block.count * self._size
        cells = block.cells + expert_ids.ravel()
        exact = gate_weights.ravel()
        weights = exact.astype(np.float64)
        counts = np.bincount(cells, minlength=size)
        sums, squares = np.zeros(size), np.zeros(size)
        np.add.at(sums, cells, weights)
        np.add.at(squares, cells, np.square(weights, out=weights))
        lows = np.full(size, np.inf, dtype=np.float32)
        highs = np.full(size, -np.inf, dtype=np.float32)
        np.minimum.at(lows, cells, exact)
        np.maximum.at(highs, cells, exact)
        values: list[npt.NDArray[Any]] = [counts, sums, squares, lows, highs]
        for each, (merge, _) in zip(values, _MERGE, strict=True):
            grid = each.reshape(self._shape)
            grid[:, _PROMPT] = merge(grid[:, _PROMPT], grid[:, _LAST])
        at = np.flatnonzero(counts)
        return _Cells(at + block.first * self._size, [each[at] for each in values])

    def _by_request(self, cells: _Cells) -> RequestUsage:
        counts, sums = cells.values[:2]
        group = cells.at // self._shape[-1]
        rows = self.groups[:, 0] * len(PHASES) + self.groups[:, 1]
        lengths = np.bincount(group, minlength=len(self._domain) * len(PHASES))[rows]
        experts = cells.at - group * self._shape[-1]
        return RequestUsage(lengths, experts.astype(np.int16), counts.astype(np.int32), sums)

    def _by_domain(self, cells: _Cells) -> DomainUsage:
        request = cells.at // self._size
        cell = self._domain[request] * self._size + cells.at - request * self._size
        size = len(self.domains) * self._size
        if size > max(_MAX_CELLS, len(cell)):  # more domains than memory: only what is used
            used, cell = np.unique(cell, return_inverse=True)
        else:
            used = np.arange(size)
        sums = []
        for (merge, start), values in zip(_MERGE, cells.values, strict=True):
            total = np.full(len(used), start, dtype=values.dtype)
            merge.at(total, cell, values)
            sums.append(total)
        chosen = np.flatnonzero(sums[0])
        domain, rest = np.divmod(used[chosen], self._size)
        phase, expert = np.divmod(rest, self._shape[-1])
        return DomainUsage(
            domain, phase, expert.astype(np.int16), *(total[chosen] for total in sums)
        )
