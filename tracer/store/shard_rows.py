"""The rows of one shard as a recorder hands them over: plain arrays, all requests at once."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NoReturn

import numpy as np
import numpy.typing as npt

from tracer.errors import DamagedDataError
from tracer.store.choices import as_float32, sort_choices

__all__ = ["RouterWeights", "ShardRows", "TracedRequest"]

_CACHE_LINE = 64  # bytes


@dataclass(frozen=True, slots=True)
class RouterWeights:
    """The router of one layer: logits = weight @ hidden + bias.

    weight: float32 [num_experts, hidden]; bias: float32 [num_experts] or None
    selection_bias: float32 [num_experts], added to the scores that choose experts and not to
        the gate weights; None where the model has none
    """

    weight: npt.NDArray[np.float32]
    bias: npt.NDArray[np.float32] | None = None
    selection_bias: npt.NDArray[np.float32] | None = None

    def check(self, layer_id: int, num_experts: int) -> None:
        """Refuse what is not the router of so many experts.

        Raises:
            DamagedDataError: a shape that does not fit.
        """
        biases = [bias for bias in (self.bias, self.selection_bias) if bias is not None]
        shapes = [self.weight.shape[:1], *(bias.shape for bias in biases)]
        if any(shape != (num_experts,) for shape in shapes):
            raise DamagedDataError(
                f"router of layer {layer_id} has shapes {self.weight.shape},"
                f" {', '.join(str(bias.shape) for bias in biases)} for {num_experts} experts"
            )


@dataclass(frozen=True, slots=True)
class TracedRequest:
    """One finished request of a batch.

    token_ids: int32 [prompt + generated], the last sampled token included
    num_rows: its tokens that have routing
    """

    request_id: str
    domain: str
    num_prompt_tokens: int
    token_ids: npt.NDArray[np.int32]
    num_rows: int


@dataclass(frozen=True, slots=True)
class ShardRows:
    """What one worker recorded of some finished requests; arrays may be strided views.

    The rows of a request lie together, requests in the order of ``requests``; n is the sum of
    their ``num_rows``. Choices of a token may come in any order.

    layer_ids: the worker's MoE layers, ascending
    positions: int32 [n], ascending within a request
    expert_ids: uint8 or int16 [n, layers, top_k]
    gate_weights: float32 [n, layers, top_k], or uint16, the upper halves of such float32
        numbers (bfloat16)
    candidate_ids, candidate_scores: int16 and float32 [n, layers, M], by descending score; both
        or none
    router_logits: float32 or float16 [n, layers, num_experts]
    """

    layer_ids: Sequence[int]
    requests: Sequence[TracedRequest]
    positions: npt.NDArray[np.int32]
    expert_ids: npt.NDArray[np.uint8 | np.int16]
    gate_weights: npt.NDArray[np.float32 | np.uint16]
    candidate_ids: npt.NDArray[np.int16] | None = None
    candidate_scores: npt.NDArray[np.float32] | None = None
    router_logits: npt.NDArray[np.float32 | np.float16] | None = None

    @property
    def row_counts(self) -> npt.NDArray[np.int64]:
        """``num_rows`` of every request."""
        return np.array([request.num_rows for request in self.requests], dtype=np.int64)

    def check(self, num_experts: int) -> None:
        """Refuse what no router can have produced.

        ``ShardWriter.write`` makes the same checks on its way: calling this first costs time
        and changes nothing.

        Raises:
            DamagedDataError: what ``check_frame``, ``choices``, ``candidates`` and ``logits`` say.
        """
        self.check_frame(num_experts)
        for _ in self.choices(num_experts):
            pass
        for index in range(len(self.layer_ids)):
            if self.candidate_ids is not None:
                self.candidates(index, num_experts)
            if self.router_logits is not None:
                self.logits(index)

    def check_frame(self, num_experts: int) -> None:
        """Refuse arrays that do not fit together and positions that cannot be.

        Raises:
            DamagedDataError: shapes that disagree, or a position outside its request or out of
                order.
        """
        counts = self.row_counts
        frame = (int(counts.sum()), len(self.layer_ids))
        parts = {
            "expert_ids": (self.expert_ids, None),
            "gate_weights": (self.gate_weights, self.expert_ids.shape[-1]),
            "candidate_ids": (self.candidate_ids, None),
            "candidate_scores": (
                self.candidate_scores,
                None if self.candidate_ids is None else self.candidate_ids.shape[-1],
            ),
            "router_logits": (self.router_logits, num_experts),
        }
        if self.positions.shape != frame[:1]:
            raise DamagedDataError(
                f"positions has shape {self.positions.shape}, the requests have {frame[0]} rows"
            )
        for name, (array, width) in parts.items():
            if array is None:
                continue
            expected = (*frame, array.shape[-1] if width is None else width)
            if array.shape != expected:
                raise DamagedDataError(f"{name} has shape {array.shape}, expected {expected}")
        if (self.candidate_ids is None) != (self.candidate_scores is None):
            raise DamagedDataError("candidate_ids and candidate_scores come together or not at all")
        self._check_positions(counts)

    def _check_positions(self, counts: npt.NDArray[np.int64]) -> None:
        lengths = np.array([len(request.token_ids) for request in self.requests], dtype=np.int32)
        wrong = (self.positions < 0) | (self.positions >= np.repeat(lengths, counts))
        falls = np.diff(self.positions) <= 0
        ends = np.cumsum(counts)[:-1]
        falls[ends[(ends > 0) & (ends <= len(falls))] - 1] = False  # where the next request begins
        wrong[1:] |= falls
        if wrong.any():
            raise DamagedDataError(
                f"{self._name(wrong)} has positions outside the request or out of order"
            )

    def choices(
        self, num_experts: int
    ) -> Iterator[tuple[npt.NDArray[np.int16], npt.NDArray[np.float32]]]:
        """Expert ids and gate weights of each layer, sorted: int16 and float32 [n, top_k].

        Some layers at a time: their weights lie in one line of the processor's cache, which is
        then fetched once.

        Raises:
            DamagedDataError: an id outside 0..num_experts-1, an expert twice in one choice, a
                weight that is not finite.
        """
        step = max(1, _CACHE_LINE // (self.gate_weights.itemsize * self.gate_weights.shape[-1]))
        for first in range(0, len(self.layer_ids), step):
            ids = self.expert_ids[:, first : first + step]
            weights = self.gate_weights[:, first : first + step]
            choices = sort_choices(ids, weights, num_experts)
            if choices is None:
                self._refuse_choices(ids, weights, num_experts)
            else:
                yield from zip(*choices, strict=True)

    def _refuse_choices(
        self,
        expert_ids: npt.NDArray[np.uint8 | np.int16],
        gate_weights: npt.NDArray[np.float32 | np.uint16],
        num_experts: int,
    ) -> NoReturn:
        """Say what is wrong with the first layer of some where something is."""
        for index in range(expert_ids.shape[1]):
            self._check_ids(expert_ids[:, index], num_experts, "chooses")
            self._check_finite(as_float32(gate_weights[:, index]), "a gate weight")
        raise AssertionError("choices that were refused are in order")

    def candidates(
        self, index: int, num_experts: int
    ) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.float32]]:
        """Best experts and their selection scores in the layer at ``index``: new arrays [n, M].

        Raises:
            DamagedDataError: as ``choices``, or scores that ascend.
        """
        assert self.candidate_ids is not None and self.candidate_scores is not None  # noqa: S101, PT018
        ids = self.candidate_ids[:, index].astype(np.int16)
        self._check_ids(ids, num_experts, "has among its candidates")
        scores = self.candidate_scores[:, index].astype(np.float32)
        self._check_finite(scores, "a candidate's score")
        rises = (scores[:, 1:] > scores[:, :-1]).any(axis=-1)
        if rises.any():
            raise DamagedDataError(f"{self._name(rises)} has candidates that are not by score")
        return ids, scores

    def logits(self, index: int) -> npt.NDArray[np.float32]:
        """Router logits of the layer at ``index``: a new array [n, num_experts].

        Raises:
            DamagedDataError: one is not finite.
        """
        assert self.router_logits is not None  # noqa: S101
        logits = self.router_logits[:, index].astype(np.float32)
        self._check_finite(logits, "a router logit")
        return logits

    def _check_ids(
        self, ids: npt.NDArray[np.uint8 | np.int16], num_experts: int, verb: str
    ) -> None:
        if not ids.size:
            return
        low, high = int(ids.min()), int(ids.max())
        if low < 0 or high >= num_experts:
            wrong = low if low < 0 else high
            name = self._name((ids == wrong).any(axis=-1))
            raise DamagedDataError(
                f"{name} has expert id {wrong}; ids run from 0 to {num_experts - 1}"
            )
        columns = np.ascontiguousarray(ids.T)
        for shift in range(1, len(columns)):
            same = columns[shift:] == columns[:-shift]
            if same.any():
                name = self._name(same.any(axis=0))
                raise DamagedDataError(f"{name} {verb} the same expert twice for one token")

    def _check_finite(self, values: npt.NDArray[np.float32], what: str) -> None:
        finite = np.isfinite(values)
        if not finite.all():
            name = self._name(~finite.all(axis=-1))
            raise DamagedDataError(f"{name} has {what} that is not a finite number")

    def _name(self, wrong: npt.ArrayLike) -> str:
        """The request of the first row where ``wrong`` holds, as errors name it."""
        ends = np.cumsum(self.row_counts)
        number = int(np.searchsorted(ends, int(np.argmax(wrong)), side="right"))
        return f"request {self.requests[number].request_id!r}"
