"""Puts other rows in the place of relations that a measure reads, and the recorded ones back.

``drawn_requests`` is the bootstrap; ``nulls`` has the draws that make chance levels.
"""

from collections.abc import Mapping

import duckdb
import numpy as np
import numpy.typing as npt
import polars as pl

from tracer.analysis.measures.inputs import OTHER, count_again, frame_of, replace

__all__ = ["Redraw", "drawn_requests", "with_replacement"]

Ints = npt.NDArray[np.int64]
Rng = np.random.Generator


class Redraw:
    """Draws relations of one connection, again and again; ``restore`` puts the recorded ones back.

    They must be held in memory (``make_inputs(keep=True)``).
    """

    def __init__(self, con: duckdb.DuckDBPyConnection) -> None:
        self._con = con
        tables = con.execute("select table_name from duckdb_tables()").fetchall()
        self._made = {name for (name,) in tables}
        self._recorded: dict[str, pl.DataFrame] = {}

    def recorded(self, name: str) -> pl.DataFrame:
        """The relation as it was recorded, in a fixed order."""
        if name not in self._recorded:
            self._recorded[name] = frame_of(self._con, name)
        return self._recorded[name]

    def has(self, name: str) -> bool:
        """Whether the measure needs the relation."""
        return name in self._made

    def put(self, name: str, frame: pl.DataFrame) -> None:
        """Let ``frame`` stand for the relation."""
        self.recorded(name)
        replace(self._con, name, frame)

    def restore(self) -> None:
        """Put the recorded relations back."""
        for name, frame in self._recorded.items():
            replace(self._con, name, frame)
        self.count_again()

    def count_again(self) -> None:
        """Make what is counted from other relations true of those that stand there now."""
        count_again(self._con, self._made)


def drawn_requests(redraw: Redraw, rng: Rng) -> None:
    """Requests drawn anew with replacement, as many of each domain as there are.

    Where there are two runs, a request of both is drawn of both alike; those of the second alone
    are drawn on their own.
    """
    requests = redraw.recorded("scoped_requests")
    drawn = with_replacement(requests, rng)
    redraw.put("scoped_requests", drawn)
    name = f"{OTHER}scoped_requests"
    if not redraw.has(name):
        return
    other = redraw.recorded(name)
    shared = (
        other.join(drawn.select("origin", drawn_id="request_id"), on="origin")
        .with_columns(request_id="drawn_id")
        .select(other.columns)
    )
    alone = other.join(requests, on="origin", how="anti", maintain_order="left")
    redraw.put(name, pl.concat([shared, with_replacement(alone, rng)]))


def with_replacement(
    requests: pl.DataFrame, rng: Rng, sizes: Mapping[str, int] | None = None
) -> pl.DataFrame:
    """Requests of each domain with replacement, under new ids.

    Args:
        requests: `scoped_requests`.
        rng: of the draw.
        sizes: how many of each domain; by default as many as there are.
    """
    domain = (requests["domain"].rank("dense").cast(pl.Int64) - 1).to_numpy()
    names = requests["domain"].unique().sort().to_list()
    order = np.argsort(domain, kind="stable")
    chosen = []
    first = 0
    for name, size in zip(names, np.bincount(domain).tolist(), strict=True):
        wanted = size if sizes is None else sizes.get(name, 0)
        chosen.append(order[first + rng.integers(0, size, wanted)])
        first += size
    copies = pl.int_range(pl.len()).over("origin").cast(pl.String)
    drawn = requests[np.concatenate(chosen or [order])]
    return drawn.with_columns(request_id=pl.col("origin") + "#" + copies)
