"""Sums of choices: per request and phase (`usage`), per domain and phase (`usage_by_domain`).

Made layer by layer from the arrays that become the rows of `routing`, after weights took their
stored precision, so that rollups and rows agree. The loops are in ``tracer.store.sum_kernels``.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tracer.store.shard_rows import ShardRows
from tracer.store.sum_kernels import (
    NUM_PHASES,
    DomainSums,
    RequestSums,
    gather_sums,
    sum_choices,
)

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
    """`usage_by_domain` of some layers, one entry per cell with choices.

    lengths: int64 [layers, domains, phases], entries of each of ``Rollup.domains`` and ``PHASES``;
        the other arrays hold them in this order, experts ascending
    """

    lengths: npt.NDArray[np.int64]
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
        requests = rows.requests
        self._num_experts = num_experts
        tokens = _tokens(rows)
        self._row_ends = np.cumsum(tokens)  # positions ascend, so the rows of a phase are together
        tokens[:, _PROMPT] += tokens[:, _LAST]
        self.groups = np.column_stack([*np.nonzero(tokens), tokens[tokens > 0]])
        self.prompt_rows = tokens[:, _PROMPT]
        self._used = np.flatnonzero(tokens)

        self.domains: Sequence[str] = sorted({request.domain for request in requests})
        number = {domain: index for index, domain in enumerate(self.domains)}
        domain = np.array([number[request.domain] for request in requests])
        self._by_domain = np.argsort(domain, kind="stable")
        self._domain_ends = np.cumsum(np.bincount(domain, minlength=len(self.domains)))

        most = np.minimum(tokens * rows.expert_ids.shape[-1], num_experts)
        self._of_requests = _room_of_requests(most)
        most_of_domain = np.zeros((len(self.domains), NUM_PHASES), dtype=np.int64)
        np.add.at(most_of_domain, domain, most)
        most_of_layer = int(np.minimum(most_of_domain, num_experts).sum())
        self._of_domains = _room_of_domains(len(rows.layer_ids) * most_of_layer)
        self._lengths: list[npt.NDArray[np.int64]] = []  # as in DomainUsage, of each layer
        self._size = 0  # of the entries of domains

    def add(
        self, expert_ids: npt.NDArray[np.int16], gate_weights: npt.NDArray[np.float32]
    ) -> RequestUsage:
        """Sums of the next layer by request; both arguments [n, top_k], contiguous."""
        lengths = np.empty((len(self.domains), NUM_PHASES), np.int64)
        sum_choices(
            expert_ids,
            gate_weights,
            self._row_ends,
            self._by_domain,
            self._domain_ends,
            self._num_experts,
            self._of_requests,
            self._of_domains,
            self._size,
            lengths,
        )
        self._lengths.append(lengths)
        self._size += int(lengths.sum())
        return self._request_usage()

    def by_domain(self) -> DomainUsage:
        """Sums of all layers that were added; one or more."""
        values = self._of_domains
        end = self._size
        return DomainUsage(
            np.stack(self._lengths),
            values.expert_ids[:end],
            values.counts[:end],
            values.sums[:end],
            values.squares[:end],
            values.lows[:end],
            values.highs[:end],
        )

    def _request_usage(self) -> RequestUsage:
        found = self._of_requests
        lengths = found.lengths[self._used]
        size = int(lengths.sum())
        usage = RequestUsage(
            lengths, np.empty(size, np.int16), np.empty(size, np.int32), np.empty(size, np.float64)
        )
        gather_sums(found, usage.expert_ids, usage.num_choices, usage.weight_sum)
        return usage


def _tokens(rows: ShardRows) -> npt.NDArray[np.int64]:
    """Rows of each request and phase, the last prompt token's not among the prompt's."""
    counts = rows.row_counts
    prompts = np.array([request.num_prompt_tokens for request in rows.requests])
    # How far each row is behind the last prompt token.
    behind = rows.positions - np.repeat(prompts.astype(np.int32) - 1, counts)
    ends = np.cumsum(counts)

    def counted(which: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
        before = np.zeros(len(which) + 1, np.int64)
        np.cumsum(which, out=before[1:])
        found: npt.NDArray[np.int64] = before[ends] - before[ends - counts]
        return found

    prompt, last = counted(behind < 0), counted(behind == 0)
    return np.column_stack([prompt, last, counts - prompt - last])


def _room_of_requests(most: npt.NDArray[np.int64]) -> RequestSums:
    """For at most ``most`` entries of each request and phase, and one."""
    room = most.ravel() + 1
    size = int(room.sum())
    return RequestSums(
        np.cumsum(room) - room,
        np.zeros(len(room), np.int64),
        np.empty(size, np.int16),
        np.empty(size, np.int32),
        np.empty(size, np.float64),
    )


def _room_of_domains(size: int) -> DomainSums:
    return DomainSums(
        np.empty(size, np.int16),
        np.empty(size, np.int64),
        np.empty(size, np.float64),
        np.empty(size, np.float64),
        np.empty(size, np.float32),
        np.empty(size, np.float32),
    )
