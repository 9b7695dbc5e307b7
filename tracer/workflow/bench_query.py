"""Runs the measurement of `tracer bench query`."""

import math
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tracer.analysis.bootstrap import percentile_interval, poisson_weights
from tracer.analysis.measures.catalogue import measure_named
from tracer.analysis.measures.inputs import Asked, frame_of, make_inputs
from tracer.analysis.request_usage import (
    RequestLayers,
    RequestUsage,
    domain_contributions,
    request_layers,
)
from tracer.analysis.sql import connect, run_query
from tracer.bench.loads import Stopwatch
from tracer.bench.made_lake import fill_lake
from tracer.bench.made_routing import MADE_MODELS, make_routing
from tracer.bench.query import (
    QueryCost,
    nearest_in_memory,
    pairs_in_memory,
    peak_bytes,
    read_choices,
    take_turns,
    turns_in_memory,
)
from tracer.errors import DamagedDataError, InputError
from tracer.store.run_writer import SHARD_CHOICES
from tracer.workflow.progress import CaptureProgress
from tracer.workflow.query_report import DRAWS, MODEL, QueryReport

__all__ = ["QueryReport", "bench_query"]

_RUN = "bench"
_KEYS = ["layer_id", "domain", "expert_id"]
_SUM_ERROR = 1e-9  # relative; both add float64 numbers, in another order
_SEED, _LEVEL = 1, 0.95
_PAIRS, _ALIKE = "co_activation", "nearest_requests"


def bench_query(choices: int, rounds: int, keep: Path | None) -> QueryReport:
    """Measure questions to a run of at least ``choices`` choices; progress goes to stderr.

    Args:
        choices: number of them; batches repeat the rows of one, under other request ids.
        rounds: turns of every mode.
        keep: folder that the lake is made in and stays in; by default a temporary one.

    Raises:
        InputError: ``keep`` is not a new or empty folder.
        DamagedDataError: rollups and rows do not give the same answer, or pairs are miscounted.
    """
    if keep is not None and keep.exists() and (not keep.is_dir() or any(keep.iterdir())):
        raise InputError(f"{keep} is not empty", "name a new folder for --keep.")
    with tempfile.TemporaryDirectory(prefix="tracer-bench-") as folder:
        return QueryReport(rounds, _measure(choices, rounds, keep or Path(folder) / "lake"))


def _measure(choices: int, rounds: int, folder: Path) -> QueryCost:
    model = MADE_MODELS[MODEL]
    batches = math.ceil(choices / SHARD_CHOICES)  # none larger than a capture writes
    tokens = math.ceil(choices / batches / (model.num_layers * model.top_k))
    progress = CaptureProgress(sys.stderr)
    progress.note(f"making {tokens:,} tokens")
    made = make_routing(model, tokens)
    lake, sizes = fill_lake(folder, made, batches, _RUN, progress.note)
    binds = {"run_id": _RUN, "tokens": "all"}
    watch = Stopwatch()
    con = connect(lake)
    first = run_query(con, "eci", **binds)
    opened = watch.read()
    run = lake.run(_RUN)
    files = lake.files("routing", _RUN)

    def count_pairs() -> Any:
        make_inputs(con, measure_named(_PAIRS).reads, Asked(run, "all", {}))
        return run_query(con, f"measures/{_PAIRS}")

    pairs = {
        "pairs": count_pairs,
        "pairs_read": lambda: read_choices(files),
        **pairs_in_memory(made),
    }
    domains = first["domain"].unique()

    def drawn_requests() -> RequestLayers:
        return request_layers(con, run, tokens="all", domains={}, counted=domains)

    def most_alike() -> Any:
        make_inputs(con, [_ALIKE], Asked(run, "all", {}))
        return frame_of(con, _ALIKE)

    requests = drawn_requests()
    units = [_units(requests.layer(layer_id)) for layer_id in run["moe_layers"]]
    alike: dict[str, Callable[[], Any]] = {
        "alike": most_alike,
        "alike_numpy": lambda: nearest_in_memory(units),
    }
    # Before anything else asks for much: memory that was held once is not always given back.
    peaks = {mode: peak_bytes(turn) for mode, turn in (alike | pairs).items()}
    _same_pairs(pairs["pairs"](), pairs["pairs_numpy"](), batches)
    _same_alike(alike["alike"](), alike["alike_numpy"](), units)
    _same_answer(first, run_query(con, "eci_from_choices", **binds))
    _same_shares(first, requests, run["moe_layers"])

    def intervals() -> None:
        requests = drawn_requests()
        weights = poisson_weights(len(requests.domain), DRAWS, _SEED)
        for layer_id in run["moe_layers"]:
            percentile_interval(_contributions(requests, layer_id, weights), _LEVEL)

    turns = {
        "rollup": lambda: run_query(con, "eci", **binds),
        "bootstrap": intervals,
        "rows": lambda: run_query(con, "eci_from_choices", **binds),
        **turns_in_memory(made),
        **pairs,
        **alike,
    }
    spent = take_turns(turns, rounds, progress.note)
    con.close()
    stored = made.num_choices * batches
    in_lake = {"rollup", "bootstrap", "rows", "pairs", "pairs_read", *alike}
    return QueryCost(
        tokens * batches,
        len(made.rows.requests) * batches,
        batches,
        {mode: stored if mode in in_lake else made.num_choices for mode in spent},
        opened,
        spent,
        sizes,
        peaks,
    )


def _same_answer(rollup: Any, rows: Any) -> None:
    rollup, rows = rollup.sort(_KEYS), rows.sort(_KEYS)
    counted = [*_KEYS, "num_choices", "num_tokens"]
    apart = rollup["num_choices"].sum() == 0 or not rollup.select(counted).equals(
        rows.select(counted)
    )
    if apart or ((rollup["eci"] - rows["eci"]).abs() / rows["eci"]).max() > _SUM_ERROR:
        raise DamagedDataError("the queries eci and eci_from_choices do not agree")


def _same_pairs(found: Any, counts: Any, batches: int) -> None:
    """``counts``: of one batch, [layers, experts, experts]; all batches have the same rows."""
    places = (found[name].to_numpy() for name in ("layer_id", "expert_id", "second_expert_id"))
    if not (found["num_tokens"].to_numpy() == batches * counts[tuple(places)]).all():
        raise DamagedDataError("the measure co_activation does not count the pairs of the rows")


def _contributions(
    requests: RequestLayers, layer_id: int, weights: npt.NDArray[np.uint8] | None = None
) -> npt.NDArray[np.float64]:
    """Of each draw, as an audit makes them; as recorded without weights."""
    usage, labels = requests.layer(layer_id), requests.domain[None]
    return domain_contributions(usage, labels, len(requests.domains), weights)[0]


def _units(usage: RequestUsage) -> npt.NDArray[np.float64]:
    """Numbers of choices as vectors of length 1, [requests, experts]."""
    counts = usage.num_choices.astype(np.float64)
    lengths: npt.NDArray[np.float64] = np.sqrt((counts * counts).sum(axis=1, keepdims=True))
    return counts / lengths


def _same_alike(found: Any, places: Any, units: Sequence[npt.NDArray[np.float64]]) -> None:
    """Both name a request as alike as any other; several may be. ``places``: by layer."""
    ids = found["request_id"].unique().sort()
    found = found.sort("layer_id", "request_id")
    named = ids.search_sorted(found["nearest_id"]).to_numpy().reshape(len(units), -1)
    for vectors, one, two in zip(units, named, places, strict=True):
        apart = np.einsum("re,re->r", vectors, vectors[one] - vectors[two])
        if not (np.abs(apart) < _SUM_ERROR).all():
            raise DamagedDataError("the relation nearest_requests does not name the most alike")


def _same_shares(rollup: Any, requests: RequestLayers, layer_ids: Iterable[int]) -> None:
    shares = {layer_id: _contributions(requests, layer_id)[0] for layer_id in layer_ids}
    places = {domain: place for place, domain in enumerate(requests.domains)}
    for layer_id, domain, expert, eci in rollup.select(*_KEYS, "eci").iter_rows():
        if not abs(shares[layer_id][places[domain], expert] - eci) <= _SUM_ERROR * eci:
            raise DamagedDataError("the query eci and the sums in usage do not agree")
