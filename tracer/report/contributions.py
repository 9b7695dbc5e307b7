"""Contributions of an audit as dense tables, and the order of its domains and layers."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tracer.errors import DamagedDataError
from tracer.records import Audit

__all__ = ["ContributionTable", "contribution_table", "domain_names", "layer_place"]


@dataclass(frozen=True, slots=True)
class ContributionTable:
    """The audit's contributions as dense tables.

    domains: labels; layer_ids: ascending; num_columns: experts per layer
    by_domain: per domain one flat list [layer * num_columns + expert], 0 where nothing counted
    mean: the same list, mean over the audit's domains
    listed: per domain and layer, (expert id, rank) of the experts in the domain's list
    """

    domains: tuple[str, ...]
    layer_ids: tuple[int, ...]
    num_columns: int
    by_domain: tuple[list[float], ...]
    mean: list[float]
    listed: tuple[tuple[list[tuple[int, int]], ...], ...]

    def layer(self, values: list[float], index: int) -> list[float]:
        """One layer's values, expert 0 first."""
        return values[index * self.num_columns : (index + 1) * self.num_columns]


def contribution_table(audit: Audit) -> ContributionTable:
    """Lay the audit's contributions out by domain, layer and expert.

    In reference mode only listed experts count, as in the audit's own Gini.
    """
    every_chosen = audit.mode != "reference"
    rows = [c for c in audit.contributions if every_chosen or c.rank <= audit.rank_cutoff]
    domains = domain_names(audit, (row.domain for row in rows))
    layer_ids = tuple(sorted(layer.layer_id for layer in audit.layers))
    num_columns = max([audit.num_experts, *(row.expert_id + 1 for row in rows)])
    place = {layer_id: index for index, layer_id in enumerate(layer_ids)}
    domain_place = {domain: index for index, domain in enumerate(domains)}
    size = len(layer_ids) * num_columns
    by_domain = tuple([0.0] * size for _ in domains)
    listed: tuple[tuple[list[tuple[int, int]], ...], ...] = tuple(
        tuple([] for _ in layer_ids) for _ in domains
    )
    for row in rows:
        domain, layer = domain_place[row.domain], layer_place(place, row.layer_id)
        by_domain[domain][layer * num_columns + row.expert_id] = row.contribution
        if row.rank <= audit.rank_cutoff:
            listed[domain][layer].append((row.expert_id, row.rank))
    num_domains = max(audit.num_domains, 1)
    mean = [math.fsum(values) / num_domains for values in zip(*by_domain, strict=True)]
    return ContributionTable(
        domains, layer_ids, num_columns, by_domain, mean or [0.0] * size, listed
    )


def domain_names(audit: Audit, used: Iterable[str]) -> tuple[str, ...]:
    """The audit's domains in its order, then any other a row names."""
    named = [domain.domain for domain in audit.domains]
    return tuple(dict.fromkeys([*named, *sorted(set(used) - set(named))]))


def layer_place(place: Mapping[int, int], layer_id: int) -> int:
    """Place of a layer; rows of a layer the audit does not hold are damage."""
    if layer_id not in place:
        raise DamagedDataError(f"the audit has rows of layer {layer_id}, and no such layer")
    return place[layer_id]
