"""Sums of choices: per request and phase (`usage`), per domain and phase (`usage_by_domain`).

Made from the same arrays as the rows of a shard, after weights took their stored precision, so
that rollups and rows agree.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from tracer.store.traces import RequestTrace

__all__ = ["DomainUsage", "RequestUsage", "phase_slices", "request_usage"]


@dataclass(frozen=True, slots=True)
class RequestUsage:
    """One request, phase and layer: the row of `usage`; arrays over chosen experts, ascending.

    expert_ids: int16 [m]; num_choices: int32 [m]; weight_sum: float64 [m]
    """

    request_id: str
    phase: str
    layer_id: int
    num_tokens: int
    expert_ids: npt.NDArray[np.int16]
    num_choices: npt.NDArray[np.int32]
    weight_sum: npt.NDArray[np.float64]


def phase_slices(trace: RequestTrace) -> Iterator[tuple[str, slice]]:
    """The phases a trace has tokens in, as slices of its positions; last-prompt among them."""
    split = int(np.searchsorted(trace.positions, trace.num_prompt_tokens))
    if split > 0:
        yield "prompt", slice(0, split)
        if trace.positions[split - 1] == trace.num_prompt_tokens - 1:
            yield "last-prompt", slice(split - 1, split)
    if split < len(trace.positions):
        yield "generated", slice(split, len(trace.positions))


def request_usage(trace: RequestTrace, num_experts: int) -> Iterator[RequestUsage]:
    """`usage` rows of one request, every phase it has tokens in and every layer."""
    num_layers = len(trace.layer_ids)
    offset = np.arange(num_layers, dtype=np.int32)[:, None, None] * num_experts
    for phase, part in phase_slices(trace):
        keys = (trace.expert_ids[:, part] + offset).ravel()
        weights = trace.gate_weights[:, part].ravel()
        shape = (num_layers, num_experts)
        size = num_layers * num_experts
        counts = np.bincount(keys, minlength=size).reshape(shape)
        sums = np.bincount(keys, weights=weights, minlength=size).reshape(shape)
        for index, layer_id in enumerate(trace.layer_ids):
            chosen = np.flatnonzero(counts[index])
            yield RequestUsage(
                trace.request_id,
                phase,
                layer_id,
                part.stop - part.start,
                chosen.astype(np.int16),
                counts[index, chosen].astype(np.int32),
                sums[index, chosen],
            )


@dataclass(slots=True)
class DomainUsage:
    """Accumulates `usage_by_domain` over the requests of a shard; arrays [layers, experts]."""

    layer_ids: Sequence[int]
    num_experts: int
    cells: dict[tuple[str, str], dict[str, npt.NDArray[np.float64]]] = field(default_factory=dict)

    def add(self, trace: RequestTrace) -> None:
        """Add one request; its layers must be those of the shard."""
        offset = np.arange(len(self.layer_ids), dtype=np.int32)[:, None, None] * self.num_experts
        for phase, part in phase_slices(trace):
            cell = self.cells.setdefault((trace.domain, phase), self._empty())
            keys = (trace.expert_ids[:, part] + offset).ravel()
            weights = trace.gate_weights[:, part].ravel().astype(np.float64)
            size = len(cell["num_choices"])
            cell["num_choices"] += np.bincount(keys, minlength=size)
            cell["weight_sum"] += np.bincount(keys, weights=weights, minlength=size)
            cell["weight_sq_sum"] += np.bincount(keys, weights=weights**2, minlength=size)
            np.minimum.at(cell["weight_min"], keys, weights)
            np.maximum.at(cell["weight_max"], keys, weights)

    def _empty(self) -> dict[str, npt.NDArray[np.float64]]:
        size = len(self.layer_ids) * self.num_experts
        return {
            "num_choices": np.zeros(size),
            "weight_sum": np.zeros(size),
            "weight_sq_sum": np.zeros(size),
            "weight_min": np.full(size, np.inf),
            "weight_max": np.full(size, -np.inf),
        }
