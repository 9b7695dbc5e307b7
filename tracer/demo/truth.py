"""What the plant must show, computed from the designed logit table and nothing else."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tracer.demo.constants import TOP_K
from tracer.demo.ranks import standing_committee

__all__ = ["PlantedLayer", "PlantedTruth", "layer_truth"]


@dataclass(frozen=True, slots=True)
class PlantedLayer:
    """One MoE layer of the plant.

    committee: ascending expert ids
    domain_experts: for each domain the listed experts outside the committee, by rank
    logits: for each domain E designed router logits of its words, rounded to 6 decimals
    ranks: for each domain expert id to rank, 1 to top_k only
    """

    committee: tuple[int, ...]
    domain_experts: Mapping[str, tuple[int, ...]]
    logits: Mapping[str, tuple[float, ...]]
    ranks: Mapping[str, Mapping[int, int]]


@dataclass(frozen=True, slots=True)
class PlantedTruth:
    """The content of ``planted.json``.

    moe_layers: layer ids as the model counts them (dense layers are counted, not listed)
    domain_tokens: for each domain the token ids of every form of its words
    layers: by layer id
    """

    architecture: str
    seed: int
    num_experts: int
    top_k: int
    moe_layers: tuple[int, ...]
    domains: tuple[str, ...]
    domain_tokens: Mapping[str, tuple[int, ...]]
    layers: Mapping[int, PlantedLayer]

    def to_json(self) -> dict[str, object]:
        """A JSON object; integer keys become strings."""
        return {
            "architecture": self.architecture,
            "seed": self.seed,
            "num_experts": self.num_experts,
            "top_k": self.top_k,
            "moe_layers": list(self.moe_layers),
            "domains": list(self.domains),
            "domain_tokens": {name: list(ids) for name, ids in self.domain_tokens.items()},
            "layers": {str(layer_id): _layer_json(it) for layer_id, it in self.layers.items()},
        }


def _layer_json(layer: PlantedLayer) -> dict[str, object]:
    return {
        "committee": list(layer.committee),
        "domain_experts": {name: list(ids) for name, ids in layer.domain_experts.items()},
        "logits": {name: list(row) for name, row in layer.logits.items()},
        "ranks": {
            name: {str(expert): rank for expert, rank in row.items()}
            for name, row in layer.ranks.items()
        },
    }


def layer_truth(logits: Mapping[str, Sequence[float]]) -> PlantedLayer:
    """Ranks, committee and domain experts of one layer.

    Args:
        logits: for each domain E designed logits.
    """
    rounded = {name: tuple(round(value, 6) for value in row) for name, row in logits.items()}
    ranks = {name: _top_ranks(row) for name, row in rounded.items()}
    committee = standing_committee(list(ranks.values()))
    return PlantedLayer(
        committee=committee,
        domain_experts={
            name: tuple(expert for expert in row if expert not in committee)
            for name, row in ranks.items()
        },
        logits=rounded,
        ranks=ranks,
    )


def _top_ranks(row: Sequence[float]) -> dict[int, int]:
    """Expert id to rank for the TOP_K largest logits, in rank order."""
    order = sorted(range(len(row)), key=lambda expert: (-row[expert], expert))
    return {expert: rank for rank, expert in enumerate(order[:TOP_K], start=1)}
