-- expert_purity: how far experts sort choices by domain, as clusters would.
--
-- Each layer's experts are taken for clusters of its choices. Purity is the share of choices that
-- belong to their expert's most frequent domain; it cannot fall below the share of the largest
-- domain, which is a reference and not chance. Normalised information is mutual information over
-- the mean of the two entropies; label entropy is that of the domain given the expert. All three
-- move by chance too where choices are few.
--
-- asks    Do experts sort tokens by their domain?
-- source  SMoE-VAE (arXiv 2509.10025) for experts against labels; purity and normalised
--         information as in Manning, Raghavan, Schuetze (2008), 16.3
-- reads   expert_usage
-- binds   none
-- yields  layer_id, purity [share of choices], largest_domain [share of choices],
--         normalised_information [mutual information over the mean entropy],
--         label_entropy [nats]
-- key     layer_id
-- values  purity, normalised_information, label_entropy
-- null    labels
-- order   layer_id
with joint as (
    select layer_id, expert_id, domain, cast(sum(num_choices) as double) as num_choices
    from expert_usage
    group by layer_id, expert_id, domain
),
totals as (
    select layer_id, sum(num_choices) as total
    from joint
    group by layer_id
),
by_expert as (
    select
        joint.layer_id,
        joint.expert_id,
        sum(joint.num_choices) / max(totals.total) as share,
        max(joint.num_choices) / max(totals.total) as pure_share,
        sum(-joint.num_choices / totals.total * ln(joint.num_choices / totals.total))
            as joint_entropy
    from joint
    join totals on joint.layer_id = totals.layer_id
    group by joint.layer_id, joint.expert_id
),
by_domain as (
    select joint.layer_id, joint.domain, sum(joint.num_choices) / max(totals.total) as share
    from joint
    join totals on joint.layer_id = totals.layer_id
    group by joint.layer_id, joint.domain
),
experts_summed as (
    select
        layer_id,
        sum(pure_share) as purity,
        sum(joint_entropy) as joint_entropy,
        sum(-share * ln(share)) as expert_entropy
    from by_expert
    group by layer_id
),
domains_summed as (
    select layer_id, max(share) as largest, sum(-share * ln(share)) as domain_entropy
    from by_domain
    group by layer_id
)
select
    experts_summed.layer_id,
    experts_summed.purity,
    domains_summed.largest as largest_domain,
    2 * (
        experts_summed.expert_entropy
        + domains_summed.domain_entropy
        - experts_summed.joint_entropy
    ) / nullif(experts_summed.expert_entropy + domains_summed.domain_entropy, 0)
        as normalised_information,
    experts_summed.joint_entropy - experts_summed.expert_entropy as label_entropy
from experts_summed
join domains_summed on experts_summed.layer_id = domains_summed.layer_id
order by experts_summed.layer_id
