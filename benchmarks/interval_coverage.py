# ruff: noqa: INP001, T201
"""How often 95 % intervals of measures hold the truth, by several ways to make them of draws.

    python benchmarks/interval_coverage.py --lakes 400 --draws 199
    python benchmarks/interval_coverage.py --poisson                # as an audit draws

Made-up lakes of four domains have 8, 30 or 100 requests each. Tokens of a request share noise of
its own, so requests are what can be drawn anew. The truth is the measure of 8,000 requests a domain
from the same generator. The last line is JSON.
"""

import argparse
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from tracer.analysis.bootstrap import poisson_weights
from tracer.analysis.committee_draws import committee_draws
from tracer.analysis.intervals import corrected_interval, widening
from tracer.analysis.layer_draws import eci_distance, row_means
from tracer.analysis.request_usage import RequestUsage, domain_contributions
from tracer.analysis.task_specificity import task_specificity, unit_vectors

Floats = npt.NDArray[np.float64]
Weights = npt.NDArray[np.uint8]
Interval = tuple[float, float]

NUM_DOMAINS, NUM_EXPERTS, TOP_K, NUM_WORDS = 4, 16, 4, 24
SIZES = (8, 30, 100)  # requests of a domain
LENGTHS = (6, 25)  # tokens of a request, from and below
TRUTH = 8000  # requests of a domain
LEVEL = 0.95
_GROUPS = 80  # of requests that the jackknife leaves out, at most
_OF_REQUEST, _OF_WORD, _COMMON = 0.8, 0.7, 0.8  # deviations of scores; a token's noise has 1.3

# How far domains differ: standard deviation of what each adds to an expert's score.
KINDS = {"alike": 0.0, "near": 0.4, "apart": 1.2}

# Values that a list or a committee stands behind keep percentiles, as in the measures' headers.
JUMPS = ("jaccard", "coverage")
UNIT = (0.0, 1.0)
COUNTED = (0.0, math.inf)
BOUNDS = {"mutual_information": COUNTED, "divergence": COUNTED, "silhouette": (-1.0, 1.0)}
# Values that are of one domain, or of two.
OF_DOMAINS = {"load": 1, "eci": 1, "divergence": 2}


@dataclass(frozen=True, slots=True)
class Scores:
    """What routes a token: scores of experts [E], of domains [D, E] and token ids [V, E]."""

    common: Floats
    of_domain: Floats
    of_word: Floats


@dataclass(frozen=True, slots=True)
class Lake:
    """Requests of one layer: domain int64 [requests], words float32 [requests, ids * experts]."""

    domain: npt.NDArray[np.int64]
    usage: RequestUsage
    words: npt.NDArray[np.float32]


def scores(apart: float) -> Scores:
    """The same for all lakes of a kind."""
    rng = np.random.default_rng(7)
    return Scores(
        _COMMON * rng.normal(size=NUM_EXPERTS),
        apart * rng.normal(size=(NUM_DOMAINS, NUM_EXPERTS)),
        _OF_WORD * rng.normal(size=(NUM_WORDS, NUM_EXPERTS)),
    )


def made(routes: Scores, size: int, rng: np.random.Generator) -> Lake:
    """A lake of ``size`` requests a domain."""
    domain = np.repeat(np.arange(NUM_DOMAINS), size)
    lengths = rng.integers(*LENGTHS, len(domain))
    own = _OF_REQUEST * rng.normal(size=(len(domain), NUM_EXPERTS))
    of_request = routes.common + routes.of_domain[domain] + own
    request = np.repeat(np.arange(len(domain)), lengths)
    word = rng.integers(0, NUM_WORDS, len(request))
    noisy = of_request[request] + routes.of_word[word]
    noisy += rng.gumbel(size=noisy.shape)
    gates = np.exp(noisy) / np.exp(noisy).sum(axis=1, keepdims=True)
    ids = np.argpartition(-gates, TOP_K, axis=1)[:, :TOP_K]

    def summed(row: npt.NDArray[np.int64], rows: int, weights: Floats | None = None) -> Floats:
        cells = (row[:, None] * NUM_EXPERTS + ids).ravel()
        return np.bincount(cells, weights, rows * NUM_EXPERTS).astype(np.float64)

    shape = len(domain), NUM_EXPERTS
    chosen = np.take_along_axis(gates, ids, axis=1).ravel()
    usage = RequestUsage(
        lengths.astype(np.float64),
        summed(request, len(domain)).reshape(shape).astype(np.float32),
        summed(request, len(domain), chosen).reshape(shape),
    )
    words = summed(request * NUM_WORDS + word, len(domain) * NUM_WORDS)
    return Lake(domain, usage, words.reshape(len(domain), -1).astype(np.float32))


def measures(lake: Lake, weights: Weights) -> dict[str, Floats]:
    """Values [draws] where requests count as ``weights`` [requests, draws] says."""
    labels = lake.domain[None].astype(np.int16)
    contributions, present = domain_contributions(lake.usage, labels, NUM_DOMAINS, weights)
    narrow = weights.T.astype(np.float32)
    own = lake.domain == np.arange(NUM_DOMAINS)[:, None]
    counts = ((own * narrow[:, None]) @ lake.usage.num_choices).astype(np.float64)
    joint = counts / counts.sum(axis=(1, 2), keepdims=True)
    of_expert, of_domain = _entropy(joint.sum(axis=1)), _entropy(joint.sum(axis=2))
    weighed = np.nan_to_num(contributions)
    weighed = shares(weighed)
    mixed = (weighed[:, 0] + weighed[:, 1]) / 2
    by_word = (narrow @ lake.words).reshape(len(narrow), NUM_WORDS, NUM_EXPERTS)
    occurred = by_word.sum(axis=2) / TOP_K
    most = np.full(occurred.shape, np.nan)
    np.divide(by_word.max(axis=2), occurred, out=most, where=occurred > 0)
    committee = committee_draws(contributions, rank_cutoff=TOP_K, min_presence=0.7, present=present)
    units = unit_vectors(lake.usage.weight_sum)
    loads = joint.sum(axis=1)
    return {
        "load": shares(counts)[:, 0, 3],
        "eci": np.where(present[:, 0], np.nan_to_num(contributions[:, 0, 3]), np.nan),
        "max_load": loads.max(axis=1),
        "mutual_information": of_expert + of_domain - _entropy(joint.reshape(len(joint), -1)),
        "purity": joint.max(axis=1).sum(axis=1),
        "divergence": _entropy(mixed) - _entropy(weighed[:, :2]).mean(axis=1),
        "eci_distance": eci_distance(contributions),
        "vocabulary": row_means(most),
        "silhouette": row_means(task_specificity(units, labels, NUM_DOMAINS, weights)),
        "jaccard": committee.jaccard_mean,
        "coverage": committee.coverage,
        "gini": committee.gini,
    }


def shares(sums: Floats) -> Floats:
    """Of the last axis; NaN where all are 0, as of a domain that a draw left out."""
    total = sums.sum(axis=-1, keepdims=True)
    return np.divide(sums, total, out=np.full(sums.shape, np.nan), where=total > 0)


def _entropy(of: Floats) -> Floats:
    """Of the last axis, nats."""
    return -(of * np.log(np.where(of > 0, of, 1))).sum(axis=-1)


def redrawn(size: int, draws: int, rng: np.random.Generator, *, poisson: bool = False) -> Weights:
    """How often requests are drawn, as many of each domain as there are: [requests, draws].

    poisson: each on its own, as an audit does.
    """
    if poisson:
        return poisson_weights(NUM_DOMAINS * size, draws, int(rng.integers(1 << 31)))
    even = np.full(size, 1 / size)
    drawn = [rng.multinomial(size, even, size=draws).T for _ in range(NUM_DOMAINS)]
    return np.concatenate(drawn).astype(np.uint8)


def percentile(_value: float, drawn: Floats, _left: Floats) -> Interval:
    """Percentiles of the draws."""
    return _at(drawn, (1 - LEVEL) / 2), _at(drawn, (1 + LEVEL) / 2)


def basic(value: float, drawn: Floats, left: Floats) -> Interval:
    """Percentiles, reflected at the value."""
    low, high = percentile(value, drawn, left)
    return 2 * value - high, 2 * value - low


def bias_corrected(value: float, drawn: Floats, left: Floats, *, skewed: bool = False) -> Interval:
    """BC, or BCa with the acceleration of a jackknife (Efron 1987).

    A value beside all draws counts as beside all but one in (draws + 1), so that z is finite.
    """
    normal = NormalDist()
    count = len(drawn)
    share = ((drawn < value).sum() + (drawn == value).sum() / 2) / count
    middle = normal.inv_cdf(float(np.clip(share, 1 / (count + 1), count / (count + 1))))
    off = left.mean() - left
    scale = 6 * (off**2).sum() ** 1.5
    bend = float((off**3).sum() / scale) if skewed and scale > 0 else 0.0
    ends = [middle + normal.inv_cdf((1 + side * LEVEL) / 2) for side in (-1, 1)]
    low, high = (_at(drawn, normal.cdf(middle + z / (1 - bend * z))) for z in ends)
    return low, high


def accelerated(value: float, drawn: Floats, left: Floats) -> Interval:
    """BCa."""
    return bias_corrected(value, drawn, left, skewed=True)


def shifted(value: float, drawn: Floats, left: Floats) -> Interval:
    """Percentiles, moved by twice the bias of the draws."""
    low, high = percentile(value, drawn, left)
    bias = float(drawn.mean()) - value
    return low - 2 * bias, high - 2 * bias


def _at(drawn: Floats, share: float) -> float:
    return float(np.quantile(drawn, share))


METHODS: dict[str, Callable[[float, Floats, Floats], Interval]] = {
    "percentile": percentile,
    "basic": basic,
    "bc": bias_corrected,
    "bca": accelerated,
    "shifted": shifted,
}


def told(name: str, value: float, drawn: Floats, left: Floats, size: int) -> Interval:
    """The interval that the product tells."""
    if name in JUMPS:
        return percentile(value, drawn, left)
    domains = OF_DOMAINS.get(name, NUM_DOMAINS)
    low, high = corrected_interval(
        np.array([value]),
        drawn[:, None],
        LEVEL,
        widened=widening(LEVEL, [domains * size], [domains]),
        bounds=BOUNDS.get(name, UNIT),
    )
    return float(low[0]), float(high[0])


def truth(routes: Scores) -> dict[str, float]:
    """Measures of very many requests."""
    lake = made(routes, TRUTH, np.random.default_rng(1))
    once = np.ones((len(lake.domain), 1), dtype=np.uint8)
    return {name: float(value[0]) for name, value in measures(lake, once).items()}


def coverage(
    kind: str, size: int, lakes: int, draws: int, *, poisson: bool = False
) -> dict[str, dict[str, tuple[float, float]]]:
    """By measure and method: share of ``lakes`` whose interval holds the truth, mean width."""
    routes = scores(KINDS[kind])
    right = truth(routes)
    found: dict[str, dict[str, list[tuple[bool, float]]]] = {}
    for number in range(lakes):
        rng = np.random.default_rng([size, number])
        lake = made(routes, size, rng)
        groups = min(_GROUPS, len(lake.domain))
        without = np.arange(len(lake.domain))[:, None] % groups != np.arange(groups)
        once = np.ones((len(lake.domain), 1), dtype=np.uint8)
        asked = (once, redrawn(size, draws, rng, poisson=poisson), without.astype(np.uint8))
        values, drawn, left = (measures(lake, weights) for weights in asked)
        for name, value in values.items():
            again = drawn[name][~np.isnan(drawn[name])]
            jackknife = left[name][~np.isnan(left[name])]
            ends = {way: make(value[0], again, jackknife) for way, make in METHODS.items()}
            ends["told"] = told(name, value[0], again, jackknife, size)
            for way, (low, high) in ends.items():
                held = low - 1e-9 <= right[name] <= high + 1e-9
                found.setdefault(name, {}).setdefault(way, []).append((held, high - low))
    return {
        name: {way: tuple(np.mean(pairs, axis=0).tolist()) for way, pairs in ways.items()}
        for name, ways in found.items()
    }


def main() -> None:
    """Make the lakes and print the shares."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument(
        "--lakes", type=int, default=400, help="made-up lakes of each kind and size"
    )
    parser.add_argument("--draws", type=int, default=199, help="draws of requests in a lake")
    parser.add_argument("--poisson", action="store_true", help="draw requests as an audit does")
    asked = parser.parse_args()
    result: dict[str, object] = dict(vars(asked))
    ways = [*METHODS, "told"]
    for kind in KINDS:
        for size in SIZES:
            found = coverage(kind, size, asked.lakes, asked.draws, poisson=asked.poisson)
            print(f"\nDomains {kind}, {size} requests each: % of intervals right (mean width)")
            print(f"{'':20s}{''.join(f'{way:>16s}' for way in ways)}")
            for name, by_way in found.items():
                cells = [f"{100 * by_way[way][0]:7.1f} ({by_way[way][1]:.3f})" for way in ways]
                print(f"{name:20s}{''.join(f'{cell:>16s}' for cell in cells)}", flush=True)
            result[f"{kind}_{size}"] = {
                name: {way: share for way, (share, _) in by_way.items()}
                for name, by_way in found.items()
            }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
