-- depth_collapse: how alike requests of different domains use the experts of each layer.
--
-- The mean cosine of two requests' choices of experts, over all pairs of two domains, apart for
-- prompts and for what is generated. Where it rises with depth, deep layers route all text alike;
-- since_first_layer is its rise over the first MoE layer. The null renames experts in each domain
-- and layer: concentrated use is alike by chance too. similarity_closed_form is the mean of that,
-- the product of the two L1 lengths over E. No pair is made, as in usage_similarity. Always of
-- both phases, whatever the scope, of the requests that have tokens in it.
--
-- asks    Do deep layers use the same experts for all domains?
-- source  arXiv 2604.09780 Eq. 13-14; means between domains by layer and phase are ours
-- reads   phase_usage, model
-- binds   none
-- yields  phase [prompt or generated], layer_id, num_requests [requests of the phase],
--         similarity [mean cosine between domains], similarity_closed_form [mean by chance],
--         since_first_layer [cosine, rise over the first MoE layer]
-- key     phase, layer_id
-- values  similarity, since_first_layer
-- null    experts
-- order   phase, layer_id
with norms as (
    select
        phase,
        layer_id,
        request_id,
        domain,
        sum(cast(num_choices as double)) as total,
        sqrt(sum(cast(num_choices as double) * num_choices)) as norm
    from phase_usage
    group by phase, layer_id, request_id, domain
),
domain_sizes as (
    select
        phase,
        layer_id,
        domain,
        cast(count(*) as double) as num_requests,
        sum(total / norm) as length
    from norms
    group by phase, layer_id, domain
),
sizes as (
    select
        phase,
        layer_id,
        sum(num_requests) as num_requests,
        sum(num_requests) * sum(num_requests) - sum(num_requests * num_requests) as num_pairs,
        sum(length) * sum(length) - sum(length * length) as length_products
    from domain_sizes
    group by phase, layer_id
),
domain_sums as (
    select
        phase_usage.phase,
        phase_usage.layer_id,
        phase_usage.domain,
        phase_usage.expert_id,
        sum(phase_usage.num_choices / norms.norm) as total
    from phase_usage
    join norms
        on phase_usage.phase = norms.phase
        and phase_usage.layer_id = norms.layer_id
        and phase_usage.request_id = norms.request_id
    group by
        phase_usage.phase, phase_usage.layer_id, phase_usage.domain, phase_usage.expert_id
),
layer_sums as (
    select
        phase,
        layer_id,
        expert_id,
        sum(total) * sum(total) - sum(total * total) as products
    from domain_sums
    group by phase, layer_id, expert_id
),
products as (
    select phase, layer_id, sum(products) as product_sum
    from layer_sums
    group by phase, layer_id
),
means as (
    select
        sizes.phase,
        sizes.layer_id,
        sizes.num_requests,
        products.product_sum / nullif(sizes.num_pairs, 0) as similarity,
        sizes.length_products / nullif(sizes.num_pairs * model.num_experts, 0)
            as similarity_closed_form
    from sizes
    join products on sizes.phase = products.phase and sizes.layer_id = products.layer_id
    cross join model
),
first_layers as (
    select phase, min(layer_id) as layer_id
    from means
    group by phase
)
select
    means.phase,
    means.layer_id,
    cast(means.num_requests as bigint) as num_requests,
    means.similarity,
    means.similarity_closed_form,
    means.similarity - shallow.similarity as since_first_layer
from means
join first_layers on means.phase = first_layers.phase
join means as shallow
    on first_layers.phase = shallow.phase and first_layers.layer_id = shallow.layer_id
order by means.phase, means.layer_id
