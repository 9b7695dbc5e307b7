-- usage_similarity: how alike requests use the experts of a layer, within and between domains.
--
-- A request's usage is its number of choices of each expert, gate weights left aside; two requests
-- are as alike as the cosine of theirs. The means are over pairs of requests, so that a large
-- domain counts by its pairs. No pair is made: a sum of cosines is the squared length of the sum of
-- unit vectors, so the cost is one row per request, layer and expert used. Copies of one request
-- are no pair. If domains are exchanged, both means are similarity_closed_form, that of all pairs,
-- on average, and their difference is 0.
--
-- asks    Are requests of one domain routed more alike than requests of two?
-- source  arXiv 2604.09780 Eq. 13-14
-- reads   expert_usage
-- binds   none
-- yields  layer_id, num_requests [requests], within_similarity [cosine],
--         between_similarity [cosine], difference [within - between],
--         similarity_closed_form [mean of all pairs, and of both by chance]
-- key     layer_id
-- values  within_similarity, between_similarity, difference
-- null    labels
-- order   layer_id
with norms as (
    select layer_id, request_id, sqrt(sum(cast(num_choices as double) * num_choices)) as norm
    from expert_usage
    group by layer_id, request_id
),
domain_sums as (
    select
        expert_usage.layer_id,
        expert_usage.domain,
        expert_usage.expert_id,
        sum(expert_usage.num_choices / norms.norm) as total
    from expert_usage
    join norms
        on expert_usage.layer_id = norms.layer_id and expert_usage.request_id = norms.request_id
    group by expert_usage.layer_id, expert_usage.domain, expert_usage.expert_id
),
layer_sums as (
    select layer_id, expert_id, sum(total) as total
    from domain_sums
    group by layer_id, expert_id
),
within_squares as (
    select layer_id, sum(total * total) as square
    from domain_sums
    group by layer_id
),
all_squares as (
    select layer_id, sum(total * total) as square
    from layer_sums
    group by layer_id
),
copies as (
    select layer_id, domain, origin, count(distinct request_id) as num_copies
    from expert_usage
    group by layer_id, domain, origin
),
domain_sizes as (
    select
        layer_id,
        domain,
        cast(sum(num_copies) as double) as num_requests,
        cast(sum(num_copies * num_copies) as double) as num_same
    from copies
    group by layer_id, domain
),
sizes as (
    select
        layer_id,
        sum(num_requests) as num_requests,
        sum(num_requests * num_requests) as num_within,
        sum(num_same) as num_same
    from domain_sizes
    group by layer_id
),
means as (
    select
        sizes.layer_id,
        sizes.num_requests,
        (within_squares.square - sizes.num_same)
            / nullif(sizes.num_within - sizes.num_same, 0) as within_similarity,
        (all_squares.square - within_squares.square)
            / nullif(sizes.num_requests * sizes.num_requests - sizes.num_within, 0)
            as between_similarity,
        (all_squares.square - sizes.num_same)
            / nullif(sizes.num_requests * sizes.num_requests - sizes.num_same, 0)
            as similarity
    from sizes
    join within_squares on sizes.layer_id = within_squares.layer_id
    join all_squares on sizes.layer_id = all_squares.layer_id
)
select
    layer_id,
    cast(num_requests as bigint) as num_requests,
    within_similarity,
    between_similarity,
    within_similarity - between_similarity as difference,
    similarity as similarity_closed_form
from means
order by layer_id
