"""How the relations that a measure reads are drawn at random: chance levels and new requests.

Each null keeps what a measure is not about and breaks what it is about:

labels      domains of requests are exchanged: no domain differs from another
experts     experts are renamed, in each domain and layer on its own: a domain keeps its
            concentration, domains agree by chance
uniform     each token chooses its k experts evenly and on its own; its logits are dealt anew among
            the experts, so it is as sure as it was
logits      an expert's logits change places among the tokens of a layer: each expert keeps its
            own, which of them meet in a token is chance; what was chosen stays
swaps       tokens of a layer exchange choices, so that each expert keeps its load and each token
            k experts: who is chosen together is chance
order       tokens of a request change places, in all layers alike: what follows what is chance
layers      tokens of a request change places, in each layer on its own: a token's path through the
            layers is chance
token_ids   tokens of a request and phase exchange their ids, in all layers alike: who is chosen for
            what is chance, though not who is chosen in a request or domain
pairs       tokens of the second run change places, across requests, with all their layers and
            among those that are compared: each run keeps its loads, nothing meets its like
runs        requests of both runs exchange them by a coin's toss, those of one run alone are dealt
            anew within their domain: the runs do not differ
phases      requests exchange what was generated: a prompt says nothing of what follows it
dealt       choices of a layer are dealt anew among requests: each expert keeps its load, each
            request its number of choices
one_model   two samples of the first run's requests stand for the two runs: the second is the same
            model on other requests
"""

import re
from collections.abc import Callable
from typing import cast

import numpy as np
import numpy.typing as npt
import polars as pl

from tracer.analysis.measures.redraw import Redraw
from tracer.analysis.measures.run_nulls import exchanged_runs, moved_tokens, one_model
from tracer.analysis.measures.usage_nulls import dealt_choices, exchanged_phases

__all__ = ["NULLS", "null_words"]

Ints = npt.NDArray[np.int64]
Rng = np.random.Generator
_SUMS = ("usage_entries", "phase_usage_entries", "budget_entries", "candidate_entries")
_SWAPS = 16  # exchanges per choice that make a draw; after about 4 nothing is left to see


def _labels(redraw: Redraw, rng: Rng) -> None:
    requests = redraw.recorded("scoped_requests")
    shuffled = requests["domain"][rng.permutation(requests.height)]
    redraw.put("scoped_requests", requests.with_columns(domain=shuffled))


def _experts(redraw: Redraw, rng: Rng) -> None:
    requests = redraw.recorded("scoped_requests").select("origin", "domain")
    names = requests["domain"].unique().sort()
    num_experts = _model(redraw)[0]
    layers = max(
        int(cast("int", redraw.recorded(name)["layer_id"].max()))
        for name in (*_SUMS, "routing_entries")
        if redraw.has(name)
    )
    shape = len(names), layers + 1, num_experts
    renamed = rng.permuted(np.broadcast_to(np.arange(num_experts), shape), axis=-1)

    def places(entries: pl.DataFrame) -> tuple[Ints, Ints]:
        domains = entries.join(requests, on="origin", maintain_order="left")["domain"]
        layer = entries["layer_id"].to_numpy().astype(np.int64)
        return names.search_sorted(domains).to_numpy().astype(np.int64), layer

    for name in _SUMS:
        if redraw.has(name):
            entries = redraw.recorded(name)
            ids = renamed[*places(entries), entries["expert_id"].to_numpy().astype(np.int64)]
            redraw.put(name, _with_ids(entries, ids))
    if redraw.has("routing_entries"):
        entries = redraw.recorded("routing_entries")
        domain, layer = places(entries)
        ids = renamed[domain[:, None], layer[:, None], _ids_of(entries)]
        redraw.put("routing_entries", entries.with_columns(expert_ids=_lists(entries, ids)))


def _uniform(redraw: Redraw, rng: Rng) -> None:
    num_experts, top_k = _model(redraw)
    if redraw.has("routing_entries"):
        entries = redraw.recorded("routing_entries")
        ids = _random_choices(rng, entries.height, num_experts, top_k)
        redraw.put("routing_entries", entries.with_columns(expert_ids=_lists(entries, ids)))
    if redraw.has("usage_entries"):
        entries = redraw.recorded("usage_entries")
        redraw.put("usage_entries", _uniform_usage(entries, rng, num_experts, top_k))
    if redraw.has("logit_entries"):
        entries = redraw.recorded("logit_entries")
        redraw.put(
            "logit_entries", _with_logits(entries, rng.permuted(_logits_of(entries), axis=1))
        )


def _uniform_usage(entries: pl.DataFrame, rng: Rng, num_experts: int, top_k: int) -> pl.DataFrame:
    """As many tokens of each request and layer; each choice has the mean weight of its layer."""
    sums = entries.group_by("origin", "layer_id", maintain_order=True).agg(
        pl.col("num_choices").sum(), pl.col("weight_sum").sum()
    )
    tokens = sums["num_choices"].to_numpy() // top_k
    owner = np.repeat(np.arange(len(tokens)), tokens)
    ids = _random_choices(rng, len(owner), num_experts, top_k)
    cells = owner[:, None] * num_experts + ids
    counts = np.bincount(cells.ravel(), minlength=len(tokens) * num_experts)
    (used,) = np.nonzero(counts)
    row, expert = np.divmod(used, num_experts)
    mean = (sums["weight_sum"] / sums["num_choices"]).to_numpy()
    return pl.DataFrame(
        {
            "origin": sums["origin"][row],
            "layer_id": sums["layer_id"][row],
            "expert_id": expert.astype(np.int16),
            "num_choices": counts[used],
            "weight_sum": counts[used] * mean[row],
        }
    )


def _logits(redraw: Redraw, rng: Rng) -> None:
    entries = redraw.recorded("logit_entries")
    logits = _logits_of(entries)
    # What is added to all logits of a token changes none of its probabilities, so it is not mixed.
    logits -= logits.mean(axis=1, keepdims=True)
    layers = entries["layer_id"].to_numpy()
    for layer in np.unique(layers):
        (rows,) = np.nonzero(layers == layer)
        logits[rows] = rng.permuted(logits[rows], axis=0)
    redraw.put("logit_entries", _with_logits(entries, logits))


def _swaps(redraw: Redraw, rng: Rng) -> None:
    entries = redraw.recorded("routing_entries")
    ids = _ids_of(entries)
    layers = entries["layer_id"].to_numpy()
    drawn = np.empty_like(ids)
    for layer in np.unique(layers):
        (rows,) = np.nonzero(layers == layer)
        drawn[rows] = _swapped(ids[rows], rng)
    redraw.put("routing_entries", entries.with_columns(expert_ids=_lists(entries, drawn)))


def _swapped(ids: Ints, rng: Rng) -> Ints:
    """Choices [n, k] after random exchanges between pairs of rows; none twice in a row.

    Source: checkerboard swaps of 0/1 tables with fixed margins (Connor and Simberloff 1979).
    """
    ids = ids.copy()
    half = len(ids) // 2
    for _ in range(_SWAPS * ids.shape[1]):
        order = rng.permutation(len(ids))
        one, two = order[:half], order[half : 2 * half]
        slot_one, slot_two = rng.integers(0, ids.shape[1], (2, half))
        first, second = ids[one, slot_one], ids[two, slot_two]
        held = (ids[one] == second[:, None]).any(axis=1) | (ids[two] == first[:, None]).any(axis=1)
        ids[one[~held], slot_one[~held]] = second[~held]
        ids[two[~held], slot_two[~held]] = first[~held]
    return ids


def _order(redraw: Redraw, rng: Rng) -> None:
    entries = redraw.recorded("routing_entries")
    places = entries.select("origin", "phase", "position").unique(maintain_order=True)
    places = places.sort("origin", "phase", "position")
    group = places.select(pl.struct("origin", "phase").rle_id()).to_series().to_numpy()
    order = np.lexsort((rng.random(places.height), group))
    moved = places.with_columns(moved=places["position"][order])
    redraw.put(
        "routing_entries",
        entries.join(moved, on=["origin", "phase", "position"], maintain_order="left")
        .with_columns(position="moved")
        .select(entries.columns),
    )


def _layers(redraw: Redraw, rng: Rng) -> None:
    entries = redraw.recorded("routing_entries")  # groups lie together: see frame_of
    group = entries.select(pl.struct("origin", "phase", "layer_id").rle_id()).to_series().to_numpy()
    order = np.lexsort((rng.random(entries.height), group))
    redraw.put("routing_entries", entries.with_columns(position=entries["position"][order]))


def _token_ids(redraw: Redraw, rng: Rng) -> None:
    tokens = redraw.recorded("token_entries")  # groups lie together: see frame_of
    group = tokens.select(pl.struct("origin", "phase").rle_id()).to_series().to_numpy()
    shuffled = tokens["token_id"][np.lexsort((rng.random(tokens.height), group))]
    redraw.put("token_entries", tokens.with_columns(token_id=shuffled))


NULLS: dict[str, Callable[[Redraw, Rng], None]] = {
    "labels": _labels,
    "experts": _experts,
    "uniform": _uniform,
    "logits": _logits,
    "swaps": _swaps,
    "order": _order,
    "layers": _layers,
    "token_ids": _token_ids,
    "pairs": moved_tokens,
    "runs": exchanged_runs,
    "phases": exchanged_phases,
    "dealt": dealt_choices,
    "one_model": one_model,
}


def null_words() -> dict[str, str]:
    """What each null does, by name, as this module's own text says it."""
    found = re.findall(r"^(\w+)  +(\S.*(?:\n .*)*)", str(__doc__), re.MULTILINE)
    return {name: " ".join(words.split()) for name, words in found}


def _model(redraw: Redraw) -> tuple[int, int]:
    """(E, k)."""
    row = redraw.recorded("asked").row(0, named=True)
    return row["num_experts"], row["top_k"]


def _random_choices(rng: Rng, rows: int, num_experts: int, top_k: int) -> Ints:
    """K different experts for each row, evenly: int64 [rows, k].

    Source: Floyd's sampling without replacement (Bentley and Floyd 1987).
    """
    ids = np.full((rows, top_k), -1)
    for column, last in enumerate(range(num_experts - top_k, num_experts)):
        picked = rng.integers(0, last + 1, rows)
        there = (ids[:, :column] == picked[:, None]).any(axis=1)
        ids[:, column] = np.where(there, last, picked)
    return ids


def _ids_of(entries: pl.DataFrame) -> Ints:
    ids = entries["expert_ids"].explode().to_numpy().astype(np.int64)
    return ids.reshape(entries.height, -1)


def _logits_of(entries: pl.DataFrame) -> npt.NDArray[np.float32]:
    """Logits [rows, experts], a copy."""
    return entries["logits"].explode().to_numpy().reshape(entries.height, -1).copy()


def _with_logits(entries: pl.DataFrame, logits: npt.NDArray[np.float32]) -> pl.DataFrame:
    kind = entries.schema["logits"]
    lists = pl.Series(logits, dtype=pl.Array(pl.Float32, logits.shape[1])).cast(kind)
    return entries.with_columns(logits=lists)


def _lists(entries: pl.DataFrame, ids: Ints) -> pl.Series:
    kind = entries.schema["expert_ids"]
    return pl.Series(ids, dtype=pl.Array(pl.Int64, ids.shape[1])).cast(kind)


def _with_ids(entries: pl.DataFrame, ids: Ints) -> pl.DataFrame:
    kind = entries.schema["expert_id"]
    return entries.with_columns(expert_id=pl.Series(ids).cast(kind))
