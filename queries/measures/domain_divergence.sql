-- domain_divergence: how far two domains' mean gate vectors of a layer lie apart.
--
-- The Jensen-Shannon divergence is the entropy of the mean of the two less the mean of their
-- entropies H1 and H2. It can be no more than ln E - (H1 + H2) / 2, and normalised by that it is
-- 0 to 1 whatever E. Gate weights outside the top k are not recorded: a vector is that of the
-- chosen experts, scaled to sum 1, where the source has the full softmax. Each token counts by the
-- sum of its gate weights, all alike where these are normalised.
--
-- asks    How differently do two domains weigh the experts?
-- source  arXiv 2510.04694 Eq. 2
-- reads   expert_usage, model
-- binds   none
-- yields  domain, other_domain, layer_id, divergence [nats], normalised_divergence [0 to 1]
-- key     domain, other_domain, layer_id
-- values  divergence, normalised_divergence
-- null    labels
-- order   domain, other_domain, layer_id
with used as (
    select domain, layer_id, expert_id, sum(weight_sum) as weight_sum
    from expert_usage
    group by domain, layer_id, expert_id
),
totals as (
    select domain, layer_id, sum(weight_sum) as total
    from used
    group by domain, layer_id
),
shares as (
    select used.domain, used.layer_id, used.expert_id, used.weight_sum / totals.total as share
    from used
    join totals on used.domain = totals.domain and used.layer_id = totals.layer_id
    where used.weight_sum > 0
),
entropies as (
    select domain, layer_id, sum(-share * ln(share)) as entropy
    from shares
    group by domain, layer_id
),
pairs as (
    select
        one.domain,
        two.domain as other_domain,
        one.layer_id,
        (one.entropy + two.entropy) / 2 as mean_entropy
    from entropies as one
    join entropies as two on one.layer_id = two.layer_id and one.domain < two.domain
),
halves as (
    select pairs.domain, pairs.other_domain, pairs.layer_id, shares.expert_id, shares.share
    from pairs
    join shares on pairs.layer_id = shares.layer_id and pairs.domain = shares.domain
    union all
    select pairs.domain, pairs.other_domain, pairs.layer_id, shares.expert_id, shares.share
    from pairs
    join shares on pairs.layer_id = shares.layer_id and pairs.other_domain = shares.domain
),
mixed as (
    select domain, other_domain, layer_id, expert_id, sum(share) / 2 as share
    from halves
    group by domain, other_domain, layer_id, expert_id
),
mixed_entropies as (
    select domain, other_domain, layer_id, sum(-share * ln(share)) as entropy
    from mixed
    group by domain, other_domain, layer_id
)
select
    pairs.domain,
    pairs.other_domain,
    pairs.layer_id,
    mixed_entropies.entropy - pairs.mean_entropy as divergence,
    (mixed_entropies.entropy - pairs.mean_entropy)
        / nullif(ln(model.num_experts) - pairs.mean_entropy, 0) as normalised_divergence
from pairs
join mixed_entropies
    on pairs.domain = mixed_entropies.domain
    and pairs.other_domain = mixed_entropies.other_domain
    and pairs.layer_id = mixed_entropies.layer_id
cross join model
order by pairs.domain, pairs.other_domain, pairs.layer_id
