"""Tokens that chose both of two experts: what ``queries/inputs/expert_pairs.sql`` says, in arrays.

A token has k (k - 1) / 2 pairs, and what an engine's group-by takes for each of them is most of
what it takes at all. Here they are counted some tokens at a time, a pair by one number. Memory:
8 bytes x layers x experts^2 for the counts, and 8 x experts^2 + 10 MB for the work at k = 8.
"""

import duckdb
import numpy as np
import numpy.typing as npt
import polars as pl

from tracer.analysis.sql import text_batches
from tracer.errors import DamagedDataError

__all__ = ["PairCounts", "expert_pairs"]

Ints = npt.NDArray[np.int64]

_SCHEMA = pl.Schema(
    {
        "layer_id": pl.Int16(),
        "expert_id": pl.Int16(),
        "second_expert_id": pl.Int16(),
        "num_tokens": pl.Int64(),
    }
)
_ROWS = 65_536  # tokens of a layer, counted at a time


class PairCounts:
    """Counts pairs by layer, as rows of `routed_tokens` come in."""

    def __init__(self, num_experts: int, top_k: int) -> None:
        self._num_experts, self._top_k = num_experts, top_k
        self._counts: dict[int, Ints] = {}

    def add(self, rows: pl.DataFrame) -> None:
        """Count rows with layer_id and expert_ids, in any order.

        Raises:
            DamagedDataError: a row has other than k experts, or one that the model does not have.
        """
        if rows.is_empty():
            return
        layers = rows["layer_id"].to_numpy()
        ids = rows["expert_ids"].explode(empty_as_null=False).to_numpy()
        lengths = rows["expert_ids"].list.len()
        if (lengths != self._top_k).any() or (len(ids) and not self._known(ids)):
            raise DamagedDataError(
                f"`routing` has rows of other than {self._top_k} of {self._num_experts} experts",
                "find them with `tracer verify`.",
            )
        chosen = ids.reshape(-1, self._top_k)
        if (np.diff(layers) < 0).any():
            order = np.argsort(layers, kind="stable")
            layers, chosen = layers[order], chosen[order]
        starts = np.flatnonzero(np.diff(layers, prepend=-1))
        for layer, part in zip(layers[starts].tolist(), np.split(chosen, starts[1:]), strict=True):
            counts = self._counts.setdefault(layer, np.zeros(self._num_experts**2, dtype=np.int64))
            self._add_layer(counts, np.ascontiguousarray(part.T, dtype=np.int64))

    def _known(self, ids: npt.NDArray[np.int16]) -> bool:
        return bool(ids.min() >= 0 and ids.max() < self._num_experts)

    def _add_layer(self, counts: Ints, chosen: Ints) -> None:
        """``chosen``: [k, tokens]."""
        for rank in range(self._top_k - 1):
            cells = chosen[rank] * self._num_experts + chosen[rank + 1 :]
            counts += np.bincount(cells.ravel(), minlength=len(counts))

    def frame(self) -> pl.DataFrame:
        """The relation: layer_id, expert_id, second_expert_id, num_tokens, in this order."""
        parts = [pl.DataFrame(schema=_SCHEMA)]
        for layer, counts in sorted(self._counts.items()):
            square = counts.reshape(self._num_experts, self._num_experts)
            both = np.triu(square + square.T, 1)
            one, two = np.nonzero(both)
            columns = (np.full(len(one), layer), one, two, both[one, two])
            parts.append(pl.DataFrame(dict(zip(_SCHEMA, columns, strict=True))).cast(_SCHEMA))
        return pl.concat(parts)


def expert_pairs(con: duckdb.DuckDBPyConnection, prefix: str) -> pl.DataFrame:
    """The relation of a run, from its `routed_tokens`.

    Args:
        con: with the relations of the run.
        prefix: of their names.

    Raises:
        DamagedDataError: a file of the lake is missing or broken, or holds choices that no router
            can have made.
    """
    shape = con.sql(f"select num_experts, top_k from {prefix}asked").fetchall()[0]  # noqa: S608
    counts = PairCounts(*shape)
    text = f"select layer_id, expert_ids from {prefix}routed_tokens"  # noqa: S608
    for batch in text_batches(con, text, _ROWS):
        counts.add(batch)
    return counts.frame()
