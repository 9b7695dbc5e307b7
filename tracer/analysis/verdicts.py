"""What an audit says after its draws: the one place where the rule stands.

Both verdicts are made of one number, the mean ECI distance of every two domains:

agreement     claimed of a layer where it is smaller than with expert ids exchanged in each domain
              on its own (null `experts`): domains use the same experts
differences   claimed where it is larger than with domains exchanged over requests (null `labels`)

Both on one side, at 5 % after single-step max-T over the layers of the run, so that of runs without
the one or the other 5 % are told to have it, however many layers they have. Of the run it is
claimed where it is of any layer. Both may hold: a committee that all share, and more of their own.

Nothing is said where nothing could be: with fewer than two domains of two requests or more that
have rows in the layer, fewer than 19 draws, or so few ways to exchange ids or domains that the
rarest of them is no rarer than 5 %.

Why this number: it varies finely, so that 5 % is 5 %. The Jaccard index of few or short lists takes
few values, which makes its test too strict, committee size and presence fewer still, and coverage
follows size. They all have their own probabilities beside it.
"""

import math
from collections.abc import Sequence

__all__ = [
    "AGREEMENT",
    "ALPHA",
    "DIFFERENCES",
    "agreement_verdict",
    "can_say_agreement",
    "can_say_differences",
    "differences_verdict",
]

ALPHA = 0.05
# (statistic, null, alternative) that each verdict is made of.
AGREEMENT = ("eci_distance", "experts", "less")
DIFFERENCES = ("eci_distance", "labels", "greater")

_TOO_FEW = "too few domains or requests to say"


def agreement_verdict(p_adjusted: float, *, possible: bool) -> str:
    """Whether domains share their experts beyond chance."""
    if not possible or math.isnan(p_adjusted):
        return _TOO_FEW
    if p_adjusted <= ALPHA:
        return "standing committee: agreement across domains beyond chance"
    return "no more agreement than chance"


def differences_verdict(p_adjusted: float, *, possible: bool) -> str:
    """Whether domains differ beyond chance."""
    if not possible or math.isnan(p_adjusted):
        return _TOO_FEW
    if p_adjusted <= ALPHA:
        return "domains differ beyond chance"
    return "domains differ no more than by chance"


def can_say_agreement(
    num_requests: Sequence[int], draws: int, num_experts: int, rank_cutoff: int
) -> bool:
    """Whether a small probability can come out at all.

    Args:
        num_requests: of each domain that has rows in the layer.
        draws: of the null.
        num_experts: E.
        rank_cutoff: k; lists of a domain are one of E! / (E - k)!, or finer.
    """
    ways = math.log(math.perm(num_experts, rank_cutoff)) * (len(num_requests) - 1)
    return _enough(num_requests, draws) and ways >= -math.log(ALPHA)


def can_say_differences(num_requests: Sequence[int], draws: int) -> bool:
    """Whether a small probability can come out at all.

    Args:
        num_requests: of each domain that has rows in the layer.
        draws: of the null.
    """
    ways = math.lgamma(sum(num_requests) + 1)
    ways -= sum(math.lgamma(size + 1) for size in num_requests)
    # Domains of one size may be exchanged as wholes without any change.
    ways -= sum(math.lgamma(num_requests.count(size) + 1) for size in set(num_requests))
    return _enough(num_requests, draws) and ways >= -math.log(ALPHA) - 1e-9


def _enough(num_requests: Sequence[int], draws: int) -> bool:
    return sum(size > 1 for size in num_requests) > 1 and 1 / (draws + 1) <= ALPHA + 1e-12
