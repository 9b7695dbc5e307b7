"""A lake that was killed and resumed, against one that was not."""

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import polars as pl

__all__ = ["Comparison", "compare"]

# Of router scores at the edge of the top k: closer ones may swap where batches differ.
_TIE = 1e-6
_WEIGHT = 1e-5
_KEY = ["request_id", "position", "layer_id"]


@dataclass(frozen=True)
class Comparison:
    """Numbers of rows, but the last, which is a gate weight.

    lost, doubled: keys; other_tokens: token ids; near_ties: id sets that differ where the k-th and
    the next score do not; other_ids: those that differ otherwise
    """

    rows: int
    lost: int
    doubled: int
    unexpected: int
    other_tokens: int
    near_ties: int
    other_ids: int
    most_weight: float

    @property
    def ok(self):
        wrong = (self.lost, self.doubled, self.unexpected, self.other_tokens, self.other_ids)
        return not any(wrong) and self.most_weight <= _WEIGHT

    def to_dict(self):
        return {**asdict(self), "ok": self.ok}


def table(lake, name, run_id):
    rows = pl.read_delta(str(Path(lake) / name))
    return rows.filter(pl.col("run_id") == run_id).drop("run_id")


def compare(lake, whole, run_id="r"):
    """The run ``run_id`` of a lake with `r` of another, both float32, with router logits."""
    routing = table(lake, "routing", run_id)
    reference = table(whole, "routing", "r")
    keys = routing.select(_KEY)
    doubled = keys.height - keys.n_unique()
    lost = reference.join(routing, on=_KEY, how="anti").height
    unexpected = routing.join(reference, on=_KEY, how="anti").height
    tokens, others = table(lake, "tokens", run_id), table(whole, "tokens", "r")
    same = tokens.join(others, on=["request_id", "position", "token_id", "phase"])
    other_tokens = max(tokens.height, others.height) - same.height

    logits = table(whole, "router_logits", "r").select([*_KEY, "logits"])
    both = reference.join(routing, on=_KEY, suffix="_found").join(logits, on=_KEY)
    ids, found = (np.array(both[name].to_list()) for name in ("expert_ids", "expert_ids_found"))
    k = ids.shape[1]
    differ = (np.sort(ids) != np.sort(found)).any(axis=1)
    scores = np.sort(_softmax(np.array(both["logits"].to_list(), dtype=np.float64)))[:, ::-1]
    tied = scores[:, k - 1] - scores[:, k] <= _TIE
    weights = [np.array(both[name].to_list()) for name in ("gate_weights", "gate_weights_found")]
    # Weights of equal ids; of equal weights in another order each has its partner at its rank.
    gaps = np.abs(weights[0] - weights[1])[~differ]
    return Comparison(
        rows=routing.height,
        lost=lost,
        doubled=doubled,
        unexpected=unexpected,
        other_tokens=other_tokens,
        near_ties=int((differ & tied).sum()),
        other_ids=int((differ & ~tied).sum()),
        most_weight=float(gaps.max(initial=0.0)),
    )


def _softmax(logits):
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    return raised / raised.sum(axis=1, keepdims=True)
