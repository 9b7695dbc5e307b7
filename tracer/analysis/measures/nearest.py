"""Requests most like each other: what ``queries/inputs/nearest_requests.sql`` says, in arrays.

All pairs are looked at, none is kept: some requests are multiplied with all of a layer at a time.
Memory: 8 bytes x requests x experts for a layer, its rows of `expert_usage`, what DuckDB takes to
sum them, and 100 MB for the work; a matrix of all pairs would have 8 bytes x requests^2.
"""

import duckdb
import numpy as np
import numpy.typing as npt
import polars as pl

from tracer.analysis.sql import text_batches

__all__ = ["nearest_places", "nearest_requests"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_ROWS = 65_536  # of a query
_CELLS = 1 << 22  # of the products of some requests with all
_HALF_DIGIT = 5e-13  # cosines that agree to 12 digits are tied
_SCHEMA = pl.Schema({"layer_id": pl.Int16(), "request_id": pl.String(), "nearest_id": pl.String()})


def nearest_requests(con: duckdb.DuckDBPyConnection, prefix: str) -> pl.DataFrame:
    """The relation of a run, from its `expert_usage`.

    Args:
        con: with the relations of the run.
        prefix: of their names.

    Raises:
        DamagedDataError: a file of the lake is missing or broken.
    """
    text = f"select num_experts, moe_layers from {prefix}asked"  # noqa: S608
    num_experts, layer_ids = con.sql(text).fetchall()[0]
    text = (
        "select request_id, origin, expert_id, num_choices "  # noqa: S608
        f"from {prefix}expert_usage where layer_id = $layer_id"
    )
    parts = [pl.DataFrame(schema=_SCHEMA)]
    for layer_id in sorted(layer_ids):
        batches = list(text_batches(con, text, _ROWS, layer_id=layer_id))
        if batches:
            parts.append(_of_layer(layer_id, pl.concat(batches), num_experts))
    return pl.concat(parts)


def _of_layer(layer_id: int, used: pl.DataFrame, num_experts: int) -> pl.DataFrame:
    requests = used.select("request_id", "origin").unique().sort("request_id")
    number = (used["request_id"].rank("dense") - 1).to_numpy()
    units = np.zeros((requests.height, num_experts))
    np.add.at(units, (number, used["expert_id"].to_numpy()), used["num_choices"].to_numpy())
    units /= np.sqrt((units * units).sum(axis=1, keepdims=True))
    origin = requests["origin"].rank("dense").to_numpy().astype(np.int64)
    places = nearest_places(units, origin)
    (there,) = np.nonzero(places >= 0)
    ids = requests["request_id"]
    return pl.DataFrame(
        {
            "layer_id": np.full(len(there), layer_id, dtype=np.int16),
            "request_id": ids[there],
            "nearest_id": ids[places[there]],
        },
        schema=_SCHEMA,
    )


def nearest_places(units: Floats, origin: Ints) -> Ints:
    """Place of the row with the largest product, of another origin; -1 where there is none.

    Args:
        units: [requests, experts], of length 1.
        origin: of each row; of products that agree to 12 digits the first wins.
    """
    places = np.full(len(units), -1, dtype=np.int64)
    size = max(1, _CELLS // max(1, len(units)))
    for first in range(0, len(units), size):
        part = slice(first, first + size)
        cosine = units[part] @ units.T
        cosine[origin[part, None] == origin] = -1
        most = np.round(cosine.max(axis=1, keepdims=True), 12)
        found = (cosine >= most - _HALF_DIGIT).argmax(axis=1)
        places[part] = np.where(most[:, 0] >= 0, found, -1)
    return places
