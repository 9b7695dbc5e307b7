"""Two lakes that every measure is compared on, and what a comparison needs.

Nothing of ``tracer.analysis`` makes expected values here: ``arrays_of`` lists what was written.
"""

from dataclasses import dataclass, replace

import numpy as np
import polars as pl
import pytest

from tests.analysis.conftest import FilesLake, Request
from tracer.analysis.measures import draws
from tracer.analysis.measures.chance import interval_columns
from tracer.analysis.measures.run import Settings, run_measure

NUM_EXPERTS, TOP_K, LAYERS = 8, 2, (1, 2, 5)
TOP_M = 4  # recorded candidates
NEVER = 7  # an expert that is never chosen
SIZES = {"law": 9, "math": 5, "poems": 2}  # requests of each domain


@dataclass
class Choices:
    """Everything that a lake holds of routed tokens, one entry per token.

    request, domain, phase: text; position, token_id: int
    ids, weights: by layer, [tokens, top_k], by descending weight, then ascending id
    logits: by layer, [tokens, experts]
    """

    request: np.ndarray
    domain: np.ndarray
    phase: np.ndarray
    position: np.ndarray
    token_id: np.ndarray
    ids: dict
    weights: dict
    logits: dict


def made_requests(seed, *, planted):
    """Requests of ``SIZES``, each with a prompt of 1 to 9 tokens and 0 to 4 routed after it.

    planted: expert 0 is chosen almost always, 1, 2 or 3 by domain, and 4 for even token ids.
    Otherwise chance alone chooses. The first request has a single token.
    """
    rng = np.random.default_rng(seed)
    requests = []
    for number, domain in enumerate(SIZES):
        for place in range(SIZES[domain]):
            single = not requests
            num_prompt = 1 if single else int(rng.integers(1, 10))
            num_generated = 0 if single else int(rng.integers(0, 5))
            token_ids = rng.integers(10, 20, num_prompt + num_generated + (num_generated > 0))
            tokens, logits = [], []
            for token_id in token_ids[: num_prompt + num_generated]:
                token, scores = {}, {}
                for layer in LAYERS:
                    score = rng.normal(size=NUM_EXPERTS)
                    if planted:
                        score[0] += 3
                        score[1 + number] += 3
                        score[4] += 2 * (token_id % 2 == 0)
                    score[NEVER] = -20
                    score = score.astype(np.float16).astype(float)
                    token[layer] = chosen_of(score)
                    scores[layer] = score.tolist()
                tokens.append(token)
                logits.append(scores)
            requests.append(
                Request(
                    f"{domain}-{place}",
                    domain,
                    tokens[:num_prompt],
                    tokens[num_prompt:],
                    token_ids=token_ids.tolist(),
                    logits=logits,
                )
            )
    return requests


def chosen_of(score):
    """The gate weights of the experts with the largest logits, {expert: weight}."""
    gates = np.exp(score) / np.exp(score).sum()
    chosen = np.argsort(-gates, kind="stable")[:TOP_K]
    return {int(e): float(np.float32(gates[e])) for e in chosen}


def noisy_requests(requests, seed, scale):
    """The same tokens with noise added to their logits, as another checkpoint routes them."""
    rng = np.random.default_rng(seed)
    found = []
    for request in requests:
        logits = [
            {k: (np.array(v) + rng.normal(size=len(v)) * scale).tolist() for k, v in token.items()}
            for token in request.logits
        ]
        tokens = [{k: chosen_of(np.array(v)) for k, v in token.items()} for token in logits]
        prompt, generated = tokens[: len(request.prompt)], tokens[len(request.prompt) :]
        found.append(replace(request, prompt=prompt, generated=generated, logits=logits))
    return found


def arrays_of(requests, tokens="all"):
    """The routed tokens of a scope as arrays."""
    rows = []
    for request in requests:
        routed = [*request.prompt, *request.generated]
        for position, token in enumerate(routed):
            phase = "prompt" if position < len(request.prompt) else "generated"
            last = position == len(request.prompt) - 1
            if tokens in ("all", phase) or (tokens == "last-prompt" and last):
                logits = request.logits[position] if request.logits else None
                token_id = request.token_ids[position] if request.token_ids else -1
                rows.append((request, phase, position, token_id, token, logits))
    layers = sorted({layer for row in rows for layer in row[4]})
    chosen = {
        layer: [sorted(row[4][layer].items(), key=lambda pair: (-pair[1], pair[0])) for row in rows]
        for layer in layers
    }
    return Choices(
        request=np.array([row[0].request_id for row in rows]),
        domain=np.array([row[0].domain for row in rows]),
        phase=np.array([row[1] for row in rows]),
        position=np.array([row[2] for row in rows]),
        token_id=np.array([row[3] for row in rows]),
        ids={k: np.array([[e for e, _ in pairs] for pairs in v]) for k, v in chosen.items()},
        weights={k: np.array([[w for _, w in pairs] for pairs in v]) for k, v in chosen.items()},
        logits={k: np.array([row[5][k] for row in rows]) for k in layers} if rows[0][5] else {},
    )


@pytest.fixture(params=["planted", "random"])
def made(request, make_lake):
    """(lake, requests) of a planted and of a random run, named r1."""
    requests = made_requests(3, planted=request.param == "planted")
    rng = np.random.default_rng(11)
    routers = {
        layer: rng.normal(size=(NUM_EXPERTS, 4)).astype(np.float32).tolist() for layer in LAYERS
    }
    shape = {"num_experts": NUM_EXPERTS, "top_k": TOP_K, "top_m": TOP_M}
    return make_lake(requests, routers=routers, **shape), requests


@pytest.fixture
def pair(made, make_lake, together):
    """(lake, requests, others) of ``made`` and r2, which has noise in its logits.

    Another first generated token in the last request of law, one request less and one more.
    """
    lake, requests = made
    others = noisy_requests(requests, 5, 1.0)
    place = max(i for i, r in enumerate(others) if r.domain == "law" and len(r.generated) > 1)
    others[place].token_ids = list(others[place].token_ids)
    others[place].token_ids[len(others[place].prompt)] = 99
    others[1] = replace(others[1], request_id="law-new")
    shape = {"num_experts": NUM_EXPERTS, "top_k": TOP_K, "top_m": TOP_M}
    second = make_lake(others, run_id="r2", **shape)
    return together(lake, second), requests, others


@pytest.fixture
def together():
    """Joins lakes of one folder with one run each to a lake of several runs."""

    def join(*lakes):
        first = lakes[0]
        files = {table: [] for table in first.table_files}
        for lake in lakes:
            for table, paths in lake.table_files.items():
                files[table] += paths
        return FilesLake(first.path, files, [row for lake in lakes for row in lake.run_rows])

    return join


@pytest.fixture
def take():
    """Takes a measure; with neither draws nor other settings unless they are given."""

    def take(lake, name, *, run_id="r1", other_run_id=None, **options) -> pl.DataFrame:
        names = Settings.__dataclass_fields__
        settings = {key: options.pop(key) for key in list(options) if key in names}
        return run_measure(
            lake,
            name,
            run_id=run_id,
            other_run_id=other_run_id,
            settings=Settings(**{"draws": 0, **settings}),
            binds=options,
        ).frame

    return take


@dataclass
class Usage:
    """What each request used, in each layer: requests in the order of their ids.

    request, domain: text [requests]
    counts, weights: by layer, [requests, experts]
    """

    request: np.ndarray
    domain: np.ndarray
    counts: dict
    weights: dict

    def some(self, chosen):
        """That of the requests ``chosen``."""
        return Usage(
            self.request[chosen],
            self.domain[chosen],
            {layer: rows[chosen] for layer, rows in self.counts.items()},
            {layer: rows[chosen] for layer, rows in self.weights.items()},
        )


def usage_of(choices, num_experts=NUM_EXPERTS):
    """Choices of ``arrays_of`` summed by request."""
    names, first, number = np.unique(choices.request, return_index=True, return_inverse=True)
    counts, weights = {}, {}
    for layer, ids in choices.ids.items():
        counts[layer] = np.zeros((len(names), num_experts))
        weights[layer] = np.zeros((len(names), num_experts))
        np.add.at(counts[layer], (number[:, None], ids), 1)
        np.add.at(weights[layer], (number[:, None], ids), choices.weights[layer])
    return Usage(names, choices.domain[first], counts, weights)


def assert_mean_of(found, simulated, draws):
    """A mean of ``draws`` draws agrees with that of simulated ones [simulations, rows].

    It may lie five of its own standard errors away, those of the simulation added.
    """
    error = simulated.std(axis=0) * np.sqrt(1 / draws + 1 / len(simulated))
    assert (np.abs(np.asarray(found) - simulated.mean(axis=0)) <= 5 * error + 1e-12).all()


@pytest.fixture
def planted(make_lake):
    """(lake, requests) of the planted run alone, for tests of what chance leaves of the plant."""
    requests = made_requests(3, planted=True)
    return make_lake(requests, num_experts=NUM_EXPERTS, top_k=TOP_K), requests


@pytest.fixture
def copied(monkeypatch):
    """Lets the bootstrap draw requests 0, 0, 0, 1, 2, ... of each domain, in the order of ids.

    Intervals are plain percentiles, so that the interval of one draw is the draw's value.
    Returns a function that gives their places, for requests in that order with these domains.
    """

    def places(domain):
        found = []
        for name in sorted(set(domain)):
            mine = np.flatnonzero(np.asarray(domain) == name)
            found += mine[np.maximum(np.arange(len(mine)) - 2, 0)].tolist()
        return found

    def drawn(redraw, _rng):
        recorded = redraw.recorded("scoped_requests").sort("origin")
        chosen = recorded[places(recorded["domain"].to_list())]
        ids = [f"{origin}#{number}" for number, origin in enumerate(chosen["origin"])]
        redraw.put("scoped_requests", chosen.with_columns(request_id=pl.Series(ids)))

    def plain(name, observed, drawn, level, **options):
        return interval_columns(name, observed, drawn, level, **{**options, "bounds": None})

    monkeypatch.setattr(draws, "drawn_requests", drawn)
    monkeypatch.setattr(draws, "interval_columns", plain)
    return places
