-- domain_mutual_information: how much a choice says about the domain of its token.
--
-- Of the table of choices by expert and domain: sum of p(e, d) ln(p(e, d) / (p(e) p(d))). Over
-- the smaller of the two entropies it is 1 where one tells the other. A table of few choices has
-- some by chance; what is left over the chance column is what domains explain. Where there is one
-- domain, or one expert takes all choices, the normalised value is null.
--
-- asks    How much do the experts chosen say about the domain?
-- source  CESAA (arXiv 2411.06826) for mutual information of experts and domains; estimated here
--         from counts of choices
-- reads   expert_usage
-- binds   none
-- yields  layer_id, num_choices [choices], expert_entropy [nats], domain_entropy [nats],
--         mutual_information [nats],
--         normalised_information [mutual_information over the smaller entropy]
-- key     layer_id
-- values  mutual_information, normalised_information
-- null    labels
-- order   layer_id
with joint as (
    select layer_id, expert_id, domain, cast(sum(num_choices) as double) as num_choices
    from expert_usage
    group by layer_id, expert_id, domain
),
by_expert as (
    select layer_id, expert_id, sum(num_choices) as num_choices
    from joint
    group by layer_id, expert_id
),
by_domain as (
    select layer_id, domain, sum(num_choices) as num_choices
    from joint
    group by layer_id, domain
),
totals as (
    select layer_id, sum(num_choices) as total
    from joint
    group by layer_id
),
shared as (
    select
        joint.layer_id,
        sum(
            joint.num_choices / totals.total
            * ln(
                joint.num_choices * totals.total
                / (by_expert.num_choices * by_domain.num_choices)
            )
        ) as mutual_information
    from joint
    join totals on joint.layer_id = totals.layer_id
    join by_expert
        on joint.layer_id = by_expert.layer_id and joint.expert_id = by_expert.expert_id
    join by_domain on joint.layer_id = by_domain.layer_id and joint.domain = by_domain.domain
    group by joint.layer_id
),
expert_entropies as (
    select
        by_expert.layer_id,
        sum(-by_expert.num_choices / totals.total * ln(by_expert.num_choices / totals.total))
            as entropy
    from by_expert
    join totals on by_expert.layer_id = totals.layer_id
    group by by_expert.layer_id
),
domain_entropies as (
    select
        by_domain.layer_id,
        sum(-by_domain.num_choices / totals.total * ln(by_domain.num_choices / totals.total))
            as entropy
    from by_domain
    join totals on by_domain.layer_id = totals.layer_id
    group by by_domain.layer_id
)
select
    totals.layer_id,
    cast(totals.total as bigint) as num_choices,
    expert_entropies.entropy as expert_entropy,
    domain_entropies.entropy as domain_entropy,
    shared.mutual_information,
    shared.mutual_information
        / nullif(least(expert_entropies.entropy, domain_entropies.entropy), 0)
        as normalised_information
from totals
join shared on totals.layer_id = shared.layer_id
join expert_entropies on totals.layer_id = expert_entropies.layer_id
join domain_entropies on totals.layer_id = domain_entropies.layer_id
order by totals.layer_id
