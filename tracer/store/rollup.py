"""Sums of choices: per request and phase (`usage`), per domain and phase (`usage_by_domain`).

Made layer by layer from the arrays that become the rows of `routing`, after weights took their
stored precision, so that rollups and rows agree. All requests of a shard are summed at once:
every choice adds to the cell of its request, phase and expert.
"""

from collections.abc import Iterator, Sequence
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
_MAX_CELLS = 2_000_000


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
    """Some requests or domains, ``first`` on, and the rows that are theirs.

    base: int64 [rows * top_k]; the cell of a choice is its base + its expert id
    size: cells
    """

    first: int
    rows: Any
    base: npt.NDArray[np.int64]
    size: int


class Rollup:
    """Sums the layers of one shard, one at a time.

    domains: names, ascending
    groups: int64 [m, 3]: request number, phase (index into ``PHASES``) and number of tokens of
        every row that `usage` has in each layer
    """

    def __init__(self, rows: ShardRows, num_experts: int) -> None:
        requests, counts = rows.requests, rows.row_counts
        self._shape = (-1, len(PHASES), num_experts)
        prompt = np.repeat([request.num_prompt_tokens for request in requests], counts)
        phase = np.full(len(prompt), _PROMPT)
        phase[rows.positions == prompt - 1] = _LAST
        phase[rows.positions >= prompt] = _GENERATED

        request = np.repeat(np.arange(len(requests)), counts)
        tokens = np.bincount(
            request * len(PHASES) + phase, minlength=len(requests) * len(PHASES)
        ).reshape(-1, len(PHASES))
        tokens[:, _PROMPT] += tokens[:, _LAST]
        self._has_tokens = tokens > 0
        self.groups = np.column_stack([*np.nonzero(tokens), tokens[self._has_tokens]])

        self.domains: Sequence[str] = sorted({request.domain for request in requests})
        number = {domain: index for index, domain in enumerate(self.domains)}
        domain = np.repeat([number[request.domain] for request in requests], counts)

        top_k = rows.expert_ids.shape[-1]
        self._requests = list(self._blocks(request, len(requests), phase, top_k))
        self._domains = list(self._blocks(domain, len(self.domains), phase, top_k))

    def _blocks(
        self, owner: npt.NDArray[np.int64], count: int, phase: npt.NDArray[np.int64], top_k: int
    ) -> Iterator[_Block]:
        """``owner`` [n] is each row's request or domain number, below ``count``."""
        _, phases, num_experts = self._shape
        each = max(1, _MAX_CELLS // (phases * num_experts))
        for first in range(0, count, each):
            last = min(first + each, count)
            whole = last - first == count
            rows = slice(None) if whole else np.flatnonzero((owner >= first) & (owner < last))
            base = ((owner[rows] - first) * phases + phase[rows]) * num_experts
            yield _Block(first, rows, np.repeat(base, top_k), (last - first) * phases * num_experts)

    def add(
        self, expert_ids: npt.NDArray[np.int16], gate_weights: npt.NDArray[np.float32]
    ) -> tuple[RequestUsage, DomainUsage]:
        """Sums of one layer; both arguments [n, top_k]."""
        by_request = [
            self._by_request(block, expert_ids[block.rows], gate_weights[block.rows])
            for block in self._requests
        ]
        by_domain = [
            self._by_domain(block, expert_ids[block.rows], gate_weights[block.rows])
            for block in self._domains
        ]
        return RequestUsage(*_joined(by_request)), DomainUsage(*_joined(by_domain))

    def _by_request(
        self,
        block: _Block,
        expert_ids: npt.NDArray[np.int16],
        gate_weights: npt.NDArray[np.float32],
    ) -> tuple[npt.NDArray[Any], ...]:
        cells = block.base + expert_ids.ravel()
        counts = np.bincount(cells, minlength=block.size).reshape(self._shape)
        sums = np.bincount(cells, gate_weights.ravel(), minlength=block.size).reshape(self._shape)
        counts[:, _PROMPT] += counts[:, _LAST]
        sums[:, _PROMPT] += sums[:, _LAST]
        lengths = np.count_nonzero(counts, axis=-1)
        has_tokens = self._has_tokens[block.first : block.first + len(counts)]
        chosen = np.flatnonzero(counts)
        return (
            lengths[has_tokens],
            (chosen % self._shape[-1]).astype(np.int16),
            counts.ravel()[chosen].astype(np.int32),
            sums.ravel()[chosen],
        )

    def _by_domain(
        self,
        block: _Block,
        expert_ids: npt.NDArray[np.int16],
        gate_weights: npt.NDArray[np.float32],
    ) -> tuple[npt.NDArray[Any], ...]:
        cells = block.base + expert_ids.ravel()
        exact = gate_weights.ravel()
        weights = exact.astype(np.float64)
        counts = np.bincount(cells, minlength=block.size)
        sums = np.bincount(cells, weights, minlength=block.size)
        squares = np.bincount(cells, np.square(weights, out=weights), minlength=block.size)
        lows = np.full(block.size, np.inf, dtype=np.float32)
        highs = np.full(block.size, -np.inf, dtype=np.float32)
        np.minimum.at(lows, cells, exact)
        np.maximum.at(highs, cells, exact)
        grids = [grid.reshape(self._shape) for grid in (counts, sums, squares, lows, highs)]
        merge = (np.add, np.add, np.add, np.minimum, np.maximum)
        for grid, both in zip(grids, merge, strict=True):
            grid[:, _PROMPT] = both(grid[:, _PROMPT], grid[:, _LAST])
        domain, phase, expert = np.nonzero(grids[0])
        return (
            domain + block.first,
            phase,
            expert.astype(np.int16),
            *(grid[domain, phase, expert] for grid in grids),
        )


def _joined(parts: Sequence[tuple[npt.NDArray[Any], ...]]) -> list[npt.NDArray[Any]]:
    """Column by column, the blocks one after the other."""
    columns = zip(*parts, strict=True)
    return [column[0] if len(column) == 1 else np.concatenate(column) for column in columns]
