"""Values that cross stages: plain frozen dataclasses, no third-party imports."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

__all__ = [
    "AUDIT_MODES",
    "GATE_WEIGHTS",
    "NO_DOMAIN",
    "TOKEN_SCOPES",
    "UNKNOWN",
    "Audit",
    "AuditChance",
    "AuditDomain",
    "CommitteeMember",
    "Contribution",
    "DatasetRow",
    "DomainOverlap",
    "DomainSpecificity",
    "LayerAudit",
    "LayerChance",
    "StatisticChance",
    "audit_draws",
]

# The domain of requests whose dataset names none.
NO_DOMAIN = "none"
# Key and value in `runs.options` of a run whose source had expert ids only: its gate weights are
# all 1 / top_k and mean nothing.
GATE_WEIGHTS = "gate_weights"
UNKNOWN = "unknown"
AUDIT_MODES = ("gate", "reference", "paper")
TOKEN_SCOPES = ("last-prompt", "prompt", "generated", "all")


@dataclass(frozen=True, slots=True)
class DatasetRow:
    """One prompt of a dataset.

    row_id: unique within the dataset; request ids end in it, so a rerun knows what is done
    prompt: the text; a chat template, if asked for, is applied later
    domain: label the analyses compare, 'none' where the dataset has none
    labels: further labels (subject, answer, ...)
    capture: whether its routing is recorded; else it only runs beside the others
    """

    row_id: str
    prompt: str
    domain: str = NO_DOMAIN
    labels: Mapping[str, str] = field(default_factory=dict)
    capture: bool = True


@dataclass(frozen=True, slots=True)
class AuditDomain:
    """A domain as the audit saw it, in the chosen token scope.

    num_tokens: tokens of the scope that have routing rows
    num_prompt_tokens: prompt tokens of its requests, with rows or without, in any scope
    num_missing_prompt_tokens: those of them that the scope takes in and that have no rows,
        because the engine answered them from its prefix cache
    """

    domain: str
    num_requests: int
    num_tokens: int
    num_prompt_tokens: int
    num_missing_prompt_tokens: int


@dataclass(frozen=True, slots=True)
class Contribution:
    """Mean contribution of one expert in one domain and layer.

    Experts never chosen are absent, except those a list in reference mode holds with 0.

    contribution: ECI (gate mode: gate weight per token; reference mode: the authors' min-max
        normalised weight times frequency, rounded to 4 decimals)
    rank: 1 = largest in its domain and layer, rank_cutoff + 1 = not in the domain's list
    """

    layer_id: int
    domain: str
    expert_id: int
    contribution: float
    rank: int


@dataclass(frozen=True, slots=True)
class DomainOverlap:
    """Jaccard index of the top-ranked expert sets of two domains in one layer, 0 to 1."""

    layer_id: int
    domain_a: str
    domain_b: str
    jaccard: float


@dataclass(frozen=True, slots=True)
class CommitteeMember:
    """One member of a layer's standing committee (COMMITTEEAUDIT Eq. 8 to 12).

    presence: share of domains whose list holds the expert, 0 to 1
    rank_mean, rank_var: mean and population variance of its rank over domains
    contribution_mean: mean contribution over domains
    """

    expert_id: int
    presence: float
    rank_mean: float
    rank_var: float
    contribution_mean: float


@dataclass(frozen=True, slots=True)
class LayerAudit:
    """The committee of one MoE layer with every number printed beside it.

    committee: expert ids by ascending mean rank
    rank_mean, rank_var: means over the members of their mean rank and rank variance
    coverage: members' share of the layer's listed contribution, 0 to 1
    coverage_equal_weight: |C|/k, what coverage would be if all listed weights were equal and
        the members always listed; a reference, not a chance level
    influence_density: mean member contribution over mean non-member contribution
    influence_density_equal_weight: (E-|C|)/(k-|C|), the same reference; inf where |C| = k
    num_candidates: experts that passed the presence threshold (or the fallback)
    fallback_used: no expert passed, so those with the greatest presence became candidates
    jaccard_mean: mean over domain pairs; jaccard_random: expected for two random k-sets of E
    gini: of the domain-mean contributions over all E experts; zero outside the domains' lists
        in reference mode, over every chosen expert in gate mode
    """

    layer_id: int
    committee: tuple[int, ...]
    members: tuple[CommitteeMember, ...]
    rank_mean: float
    rank_var: float
    coverage: float
    coverage_equal_weight: float
    influence_density: float
    influence_density_equal_weight: float
    num_candidates: int
    fallback_used: bool
    jaccard_mean: float
    jaccard_random: float
    gini: float


@dataclass(frozen=True, slots=True)
class StatisticChance:
    """One number of one layer, its interval, and what it is by chance.

    null: `experts` (expert ids exchanged in each domain and layer on its own: for agreement across
        domains) or `labels` (domains exchanged over requests: for differences between them)
    alternative: which side counts as far from chance: greater, less or two-sided
    estimate: as recorded
    low, high: interval from requests drawn anew
    chance, chance_low, chance_high: mean and percentiles under the null; the mean of
        ``influence_density`` is harmonic, since members may hold everything
    p, p_adjusted: probability under the null of a value as far, alone and over all layers
    """

    statistic: str
    null: str
    alternative: str
    estimate: float
    low: float
    high: float
    chance: float
    chance_low: float
    chance_high: float
    p: float
    p_adjusted: float


@dataclass(frozen=True, slots=True)
class DomainSpecificity:
    """Task specificity of one domain in one layer (COMMITTEEAUDIT Eq. 5 to 7), -1 to 1.

    p_adjusted of ``specificity`` is over all domains and layers.
    """

    domain: str
    num_requests: int
    specificity: StatisticChance


@dataclass(frozen=True, slots=True)
class LayerChance:
    """One layer beside chance.

    statistics: by name, then null; ``eci_distance`` is the mean over pairs of domains of half the
        summed absolute differences of their experts' shares of ECI, 0 (same) to 1 (none shared);
        ``presence_top`` the mean presence of the k most listed experts; ``task_specificity`` the
        mean over domains
    membership: (expert, share of draws of requests in which it is a member), members first
    agreement, differences: verdicts, as ``tracer/analysis/verdicts.py`` has their rule
    same_token: as differences, where each token is compared with its like; None if not asked
    """

    layer_id: int
    statistics: tuple[StatisticChance, ...]
    membership: tuple[tuple[int, float], ...]
    specificity: tuple[DomainSpecificity, ...]
    agreement: str
    differences: str
    same_token: str | None = None

    def of(self, statistic: str, null: str) -> StatisticChance:
        """One of ``statistics``."""
        return next(s for s in self.statistics if (s.statistic, s.null) == (statistic, null))


@dataclass(frozen=True, slots=True)
class AuditChance:
    """An audit beside chance.

    draws: of each null, and as many of requests; seed: of all of them
    level: of intervals and bands; alpha: of verdicts, after correction over layers
    agreement, differences, same_token: verdicts on the run
    """

    draws: int
    seed: int
    level: float
    alpha: float
    layers: tuple[LayerChance, ...]
    agreement: str
    differences: str
    same_token: str | None = None


@dataclass(frozen=True, slots=True)
class Audit:
    """A committee audit of one run: what was asked, what was found.

    run_status: of the run, 'complete' once every request is recorded
    num_domains: n of the presence threshold; presence_threshold: least number of domains
    num_experts: E, routed experts per layer of the model
    num_experts_inferred: E as the authors' code infers it from the largest id listed, used for
        influence density in reference mode; None in gate mode
    rank_cutoff: k, how deep each domain's list goes
    num_unlabelled: requests without a domain, left out where other domains are there
    requests_by_status: requests of the run by their status; only complete ones count
    chance: intervals, chance levels and verdicts, where draws were asked for
    template_tokens: how many tokens that begin, and that end, all prompts are left out; None
        where none were to be
    """

    run_id: str
    run_status: str
    model: str
    mode: str
    tokens: str
    min_presence: float
    presence_threshold: int
    rank_cutoff: int
    num_experts: int
    num_experts_inferred: int | None
    top_k: int
    num_domains: int
    num_unlabelled: int
    requests_by_status: Mapping[str, int]
    domains: Sequence[AuditDomain]
    layers: Sequence[LayerAudit]
    contributions: Sequence[Contribution]
    overlaps: Sequence[DomainOverlap]
    chance: AuditChance | None = None
    template_tokens: tuple[int, int] | None = None

    @property
    def num_prompt_tokens(self) -> int:
        """Prompt tokens of the requests that count, with routing rows or without."""
        return sum(domain.num_prompt_tokens for domain in self.domains)

    @property
    def num_missing_prompt_tokens(self) -> int:
        """Those of them that the scope takes in and that have no rows."""
        return sum(domain.num_missing_prompt_tokens for domain in self.domains)

    @property
    def missing_prompt_share(self) -> float:
        """``num_missing_prompt_tokens`` over ``num_prompt_tokens``, 0 to 1."""
        return self.num_missing_prompt_tokens / (self.num_prompt_tokens or 1)


def audit_draws(mode: str) -> int:
    """Draws of an audit where nobody says how many: `reference` mode has none.

    199 take a second for a small run and hold 5 % exactly; the ends of intervals want 1,000.
    """
    return 0 if mode == "reference" else 199
