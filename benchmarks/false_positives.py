# ruff: noqa: INP001, T201
"""How often an audit's verdicts claim what is not there, and find what is: shares of made-up runs.

    python benchmarks/false_positives.py --runs 1000 --draws 99

Each made-up run has requests of several domains in several layers. Of each kind of run it is known
whether domains agree or differ; where they do not, the share of runs that are told they do must lie
in the 99 % band of 5 %. The last line is JSON.
"""

import argparse
import json
import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from tracer.analysis.layer_draws import eci_distance, label_draws
from tracer.analysis.layer_tests import adjusted_probability
from tracer.analysis.request_usage import RequestUsage, domain_contributions
from tracer.analysis.same_token import same_token_distance, same_token_usage
from tracer.analysis.verdicts import AGREEMENT, ALPHA, DIFFERENCES

Floats = npt.NDArray[np.float64]
Make = Callable[[np.random.Generator], list[RequestUsage]]

SIZES = (3, 4, 6, 8)  # requests of each domain
NUM_DOMAINS = len(SIZES)
NUM_EXPERTS, TOP_K, NUM_LAYERS, NUM_TOKENS = 16, 4, 3, 12
NUM_WORDS = 40
DOMAIN = np.repeat(np.arange(NUM_DOMAINS), SIZES)
_LEADS = 2.5  # of a preferred expert's score, in standard deviations of a token's noise
_OF_REQUEST = 0.7  # what the tokens of a request share


def routed(scores: Floats, rng: np.random.Generator) -> RequestUsage:
    """Requests whose tokens choose the k best of score plus noise; scores [requests, experts].

    A part of the noise is the request's own, so that its tokens are not independent.
    """
    of_request = _OF_REQUEST * rng.normal(size=scores.shape)
    shape = (len(scores), NUM_TOKENS, NUM_EXPERTS)
    noisy = (scores + of_request)[:, None] + rng.normal(size=shape)
    gates = np.exp(noisy) / np.exp(noisy).sum(axis=2, keepdims=True)
    least = np.sort(gates, axis=2)[..., -TOP_K][..., None]
    chosen = gates >= least
    return RequestUsage(
        num_tokens=np.full(len(scores), float(NUM_TOKENS)),
        num_choices=chosen.sum(axis=1).astype(np.float32),
        weight_sum=(gates * chosen).sum(axis=1),
    )


def equal(rng: np.random.Generator) -> list[RequestUsage]:
    """Random routing with equal load: neither agreement nor difference."""
    return [routed(np.zeros((len(DOMAIN), NUM_EXPERTS)), rng) for _ in range(NUM_LAYERS)]


def own_profiles(rng: np.random.Generator) -> list[RequestUsage]:
    """Each domain prefers four experts of its own at random: difference without agreement."""
    return [routed(_profiles(rng, NUM_DOMAINS)[DOMAIN], rng) for _ in range(NUM_LAYERS)]


def one_profile(rng: np.random.Generator) -> list[RequestUsage]:
    """All domains prefer the same four experts: agreement without difference."""
    return [routed(_profiles(rng, 1)[np.zeros_like(DOMAIN)], rng) for _ in range(NUM_LAYERS)]


def committee(rng: np.random.Generator) -> list[RequestUsage]:
    """Two experts lead everywhere and one more in each domain: both."""
    found = []
    for _ in range(NUM_LAYERS):
        names = rng.permutation(NUM_EXPERTS)
        scores = np.zeros((NUM_DOMAINS, NUM_EXPERTS))
        scores[:, names[:2]] = _LEADS
        for domain in range(NUM_DOMAINS):
            scores[domain, names[2 + domain]] = _LEADS
        found.append(routed(scores[DOMAIN], rng))
    return found


def _profiles(rng: np.random.Generator, count: int) -> Floats:
    scores = np.zeros((count, NUM_EXPERTS))
    scores[:, :TOP_K] = _LEADS * np.linspace(1.5, 0.5, TOP_K)
    return rng.permuted(scores, axis=1)


# What each kind of run has: (agreement, difference).
KINDS: dict[str, tuple[Make, bool, bool]] = {
    "equal_load": (equal, False, False),
    "own_profiles": (own_profiles, False, True),
    "one_profile": (one_profile, True, False),
    "committee": (committee, True, True),
}


def claims(run: list[RequestUsage], draws: int, seed: int) -> tuple[bool, bool]:
    """(agreement, difference) as the audit claims them of the run."""
    labels = label_draws(DOMAIN, draws, seed)
    observed, ids, domains = [], [], []
    for layer, usage in enumerate(run):
        labelled, _ = domain_contributions(usage, labels, NUM_DOMAINS)
        rng = np.random.default_rng([seed, 0, layer])
        renamed = rng.permuted(np.repeat(labelled[:1], draws, axis=0), axis=2)
        distances = eci_distance(labelled)
        observed.append(distances[0])
        domains.append(distances[1:])
        ids.append(eci_distance(renamed))
    recorded = np.array(observed)
    agree = adjusted_probability(recorded, np.array(ids).T, AGREEMENT[2])
    differ = adjusted_probability(recorded, np.array(domains).T, DIFFERENCES[2])
    return bool((agree <= ALPHA).any()), bool((differ <= ALPHA).any())


def rates(kind: str, runs: int, draws: int, seed: int = 0) -> tuple[float, float]:
    """Shares of ``runs`` made-up runs that are told of agreement, and of a difference."""
    make = KINDS[kind][0]
    told = [
        claims(make(np.random.default_rng([seed, number])), draws, number) for number in range(runs)
    ]
    agree, differ = np.mean(told, axis=0).tolist()
    return agree, differ


def by_token(
    rng: np.random.Generator, draws: int, seed: int, *, of_domain: float
) -> tuple[bool, bool]:
    """Routing by token id, domains with own vocabularies: claims (raw, same-token control).

    of_domain: what a domain adds to an expert's score whatever the token; 0 adds nothing.
    """
    request = np.repeat(np.arange(len(DOMAIN)), NUM_TOKENS)
    words = rng.dirichlet(np.full(NUM_WORDS, 0.5), size=NUM_DOMAINS)
    token_id = np.concatenate([rng.choice(NUM_WORDS, NUM_TOKENS, p=words[d]) for d in DOMAIN])
    labels = label_draws(DOMAIN, draws, seed)
    raw, control = [], []
    for _ in range(NUM_LAYERS):
        scores = 1.5 * rng.normal(size=(NUM_WORDS, NUM_EXPERTS))[token_id]
        scores += (of_domain * rng.normal(size=(NUM_DOMAINS, NUM_EXPERTS)))[DOMAIN[request]]
        scores += (_OF_REQUEST * rng.normal(size=(len(DOMAIN), NUM_EXPERTS)))[request]
        scores += rng.normal(size=scores.shape)
        gates = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
        ids = np.argsort(-gates, axis=1)[:, :TOP_K]
        weights = np.take_along_axis(gates, ids, axis=1)
        usage = same_token_usage(
            request, token_id, ids, weights, domain=DOMAIN, num_experts=NUM_EXPERTS
        )
        control.append(same_token_distance(usage, labels, NUM_DOMAINS))
        cells = (request[:, None] * NUM_EXPERTS + ids).ravel()
        shape = len(DOMAIN), NUM_EXPERTS
        size = shape[0] * shape[1]
        summed = RequestUsage(
            num_tokens=np.full(len(DOMAIN), float(NUM_TOKENS)),
            num_choices=np.bincount(cells, minlength=size).reshape(shape).astype(np.float32),
            weight_sum=np.bincount(cells, weights.ravel(), size).reshape(shape),
        )
        raw.append(eci_distance(domain_contributions(summed, labels, NUM_DOMAINS)[0]))
    claimed = []
    for drawn in (np.array(raw).T, np.array(control).T):
        p_adjusted = adjusted_probability(drawn[0], drawn[1:], DIFFERENCES[2])
        claimed.append(bool((p_adjusted <= ALPHA).any()))
    return claimed[0], claimed[1]


def band(runs: int) -> tuple[float, float]:
    """Between which the share of false claims lies in 99 % of such studies, if 5 % are."""
    half = 2.576 * math.sqrt(ALPHA * (1 - ALPHA) / runs)
    return ALPHA - half, ALPHA + half


def main() -> None:
    """Make the runs and print the shares."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--runs", type=int, default=1000, help="made-up runs of each kind")
    parser.add_argument("--draws", type=int, default=99, help="draws of each null in a run")
    asked = parser.parse_args()
    low, high = band(asked.runs)
    result: dict[str, object] = {"runs": asked.runs, "draws": asked.draws, "band": [low, high]}
    print(f"{asked.runs:,} runs of each kind; false claims belong in {low:.3f} to {high:.3f}")
    for kind, (_, agrees, differs) in KINDS.items():
        shares = rates(kind, asked.runs, asked.draws)
        words = []
        for name, share, there in zip(
            ("agreement", "differences"), shares, (agrees, differs), strict=True
        ):
            words.append(f"{name} {share:.3f} ({'planted' if there else 'absent'})")
            result[f"{kind}_{name}"] = share
        print(f"{kind:14s} {'   '.join(words)}", flush=True)
    for kind, of_domain in (("token_ids", 0.0), ("token_ids_and_domain", 1.0)):
        told = [
            by_token(np.random.default_rng([1, n]), asked.draws, n, of_domain=of_domain)
            for n in range(asked.runs)
        ]
        raw, control = np.mean(told, axis=0).tolist()
        print(f"{kind}: differences {raw:.3f}, same tokens compared {control:.3f}", flush=True)
        result |= {f"{kind}_raw": raw, f"{kind}_same_token": control}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
