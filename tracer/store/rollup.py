"""Sums of choices: per request and phase (`usage`), per domain and phase (`usage_by_domain`).

Made layer by layer from the arrays that become the rows of `routing`, after weights took their
stored precision, so that rollups and rows agree. The loops are in ``tracer.store.kernels``.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tracer.store.kernels import NUM_PHASES, Entries, sum_domains, sum_requests
from tracer.store.shard_rows import ShardRows

__all__ = ["PHASES", "DomainUsage", "RequestUsage", "Rollup"]

# In the order of `usage`. The last prompt token is counted apart first, then added to prompt.
PHASES = ("prompt", "last-prompt", "generated")
_PROMPT, _LAST, _GENERATED = range(NUM_PHASES)


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


class Rollup:
    """Sums the layers of one shard, one at a time.

    domains: names, ascending
    groups: int64 [m, 3]: request number, phase (index into ``PHASES``) and number of tokens of
        every row that `usage` has in each layer
    """

    def __init__(self, rows: ShardRows, num_experts: int) -> None:
        requests, counts = rows.requests, rows.row_counts
        self._num_experts = num_experts
        prompt = np.repeat([request.num_prompt_tokens for request in requests], counts)
        phase = np.full(len(prompt), _PROMPT)
        phase[rows.positions == prompt - 1] = _LAST
        phase[rows.positions >= prompt] = _GENERATED

        group = np.repeat(np.arange(len(requests)), counts) * NUM_PHASES + phase
        tokens = np.bincount(group, minlength=len(requests) * NUM_PHASES)
        self._row_ends = np.cumsum(tokens)  # positions ascend, so the rows of a phase are together
        tokens = tokens.reshape(-1, NUM_PHASES)
        tokens[:, _PROMPT] += tokens[:, _LAST]
        self.groups = np.column_stack([*np.nonzero(tokens), tokens[tokens > 0]])
        self._used = np.flatnonzero(tokens)

        self.domains: Sequence[str] = sorted({request.domain for request in requests})
        number = {domain: index for index, domain in enumerate(self.domains)}
        domain = np.array([number[request.domain] for request in requests])
        self._by_domain = np.argsort(domain, kind="stable")
        self._domain_ends = np.cumsum(np.bincount(domain, minlength=len(self.domains)))

        most = np.minimum(tokens * rows.expert_ids.shape[-1], num_experts)
        self._entries = _room(most)
        most_of_domain = np.zeros((len(self.domains), NUM_PHASES), dtype=np.int64)
        np.add.at(most_of_domain, domain, most)
        self._domain_entries = _room(np.minimum(most_of_domain, num_experts))

    def add(
        self, expert_ids: npt.NDArray[np.int16], gate_weights: npt.NDArray[np.float32]
    ) -> tuple[RequestUsage, DomainUsage]:
        """Sums of one layer; both arguments [n, top_k], contiguous."""
        return self._sum_requests(expert_ids, gate_weights), self._sum_domains()

    def _sum_requests(
        self, expert_ids: npt.NDArray[np.int16], gate_weights: npt.NDArray[np.float32]
    ) -> RequestUsage:
        found = self._entries
        sum_requests(expert_ids, gate_weights, self._row_ends, self._num_experts, found)
        size = found.ends[-1]
        return RequestUsage(
            np.diff(found.ends, prepend=0)[self._used],
            found.expert_ids[:size].copy(),
            found.counts[:size].astype(np.int32),
            found.sums[0, :size].copy(),
        )

    def _sum_domains(self) -> DomainUsage:
        found = self._domain_entries
        sum_domains(self._by_domain, self._domain_ends, self._entries, self._num_experts, found)
        size = found.ends[-1]
        group = np.repeat(np.arange(len(found.ends)), np.diff(found.ends, prepend=0))
        domain, phase = np.divmod(group, NUM_PHASES)
        sums, squares = found.sums[:, :size].copy()
        lows, highs = found.bounds[:, :size].copy()
        return DomainUsage(
            domain,
            phase,
            found.expert_ids[:size].copy(),
            found.counts[:size].copy(),
            sums,
            squares,
            lows,
            highs,
        )


def _room(most: npt.NDArray[np.int64]) -> Entries:
    """For at most ``most`` entries of each owner and phase."""
    size = int(most.sum())
    return Entries(
        np.zeros(most.size, np.int64),
        np.empty(size, np.int16),
        np.empty(size, np.int64),
        np.empty((2, size), np.float64),
        np.empty((2, size), np.float32),
    )
