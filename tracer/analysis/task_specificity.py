"""Task specificity: how much more alike requests of one domain are routed than those of others.

Stage II of COMMITTEEAUDIT (arXiv 2601.03425 v2, Eq. 5 to 7): the silhouette of request vectors by
cosine distance. The paper's vector is the softmax over all experts at the last token; in gate mode
it is the gate weight each expert got from the request's tokens in the scope, zero for experts that
were not chosen. Its length does not matter for a cosine.

Of unit vectors the mean distance to a group is 1 - u . mean(group), so all pairs are taken exactly
without making them.

Source: Rousseeuw (1987), Silhouettes, for the 0 of a group of one.
"""

import numpy as np
import numpy.typing as npt

__all__ = ["task_specificity", "unit_vectors"]

Floats = npt.NDArray[np.float64]

_CELLS = 1 << 22  # distances of requests to domains at a time: about 60 bytes of work for each
_ROUNDING = 1e-12  # of a distance


def unit_vectors(weight_sum: Floats) -> Floats:
    """Rows [requests, experts] divided by their length; a row of zeros stays one."""
    length = np.sqrt((weight_sum**2).sum(axis=1, keepdims=True))
    units = np.zeros_like(weight_sum)
    np.divide(weight_sum, length, out=units, where=length > 0)
    return units


def task_specificity(
    units: Floats,
    labels: npt.NDArray[np.integer],
    num_domains: int,
    weights: npt.NDArray[np.uint8] | None = None,
) -> Floats:
    """Mean silhouette of each domain's requests, -1 to 1: float64 [draws, domains].

    A request that is drawn several times is no neighbour of its own copies. One that is alone in
    its domain has silhouette 0. Requests without any weight are left out. NaN where a domain has no
    request, or is the only one that has.

    Args:
        units: from ``unit_vectors``, [requests, experts].
        labels: domain of each request, [draws, requests]; of one draw for the same in all.
        num_domains: how many there are.
        weights: how often each request counts, [requests, draws]; None counts each once.
    """
    num_requests = len(units)
    num_draws = len(labels) if weights is None else weights.shape[1]
    there = (units != 0).any(axis=1)
    found = np.empty((num_draws, num_domains))
    size = max(1, _CELLS // max(1, num_requests * num_domains))
    for first in range(0, num_draws, size):
        part = slice(first, min(first + size, num_draws))
        label = labels[part if len(labels) > 1 else slice(0, 1)]
        count = there * (np.ones(label.shape) if weights is None else weights.T[part] * 1.0)
        label = np.broadcast_to(label, count.shape)
        found[part] = _silhouettes(units, label, num_domains, count)
    return found


def _silhouettes(
    units: Floats, label: npt.NDArray[np.integer], num_domains: int, count: Floats
) -> Floats:
    """As ``task_specificity``; label and count are [draws, requests]."""
    own = label[:, None] == np.arange(num_domains)[:, None]  # [draws, domains, requests]
    counted = own * count[:, None]
    size = counted.sum(axis=2)
    sums = counted @ units
    near = sums.reshape(-1, units.shape[1]) @ units.T
    near = near.reshape(own.shape)  # summed likeness of a request to a domain
    with np.errstate(divide="ignore", invalid="ignore"):
        # Itself and its copies, alike by 1, are taken off both sums.
        inside = (size[..., None] - near) / (size[..., None] - count[:, None])
        outside = np.where(size[..., None] > 0, 1 - near / size[..., None], np.inf)
    outside = np.where(own, np.inf, outside).min(axis=1)
    inside = np.where(own, inside, 0).sum(axis=1)
    alone = np.where(own, size[..., None] - count[:, None], 0).sum(axis=1) <= 0
    inside, outside = (np.where(x < _ROUNDING, 0.0, x) for x in (inside, outside))
    most = np.maximum(inside, outside)
    with np.errstate(divide="ignore", invalid="ignore"):
        value = np.where(np.isinf(outside), np.nan, (outside - inside) / most)
    value = np.where((most == 0) | (alone & ~np.isinf(outside)), 0.0, value)
    value = np.where(count > 0, value, 0.0)
    total = (counted * value[:, None]).sum(axis=2)
    result = np.full(size.shape, np.nan)
    np.divide(total, size, out=result, where=size > 0)
    return result
