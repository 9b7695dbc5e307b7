-- top_p_overlap: how far requests share their most used experts, within and between domains.
--
-- A request's set is the smallest one of its experts, most used first, that takes more than top_p
-- of its choices; among equally used experts the lower id comes first. Overlap is the Jaccard index
-- of two sets, averaged over pairs of requests; copies of one request are no pair. All pairs that
-- share an expert are joined: layers x requests^2 / 2 rows are grouped, in each draw again, so take
-- some of many requests. If domains are exchanged, both means are overlap_closed_form, that of all
-- pairs, on average, and their difference is 0.
--
-- asks    Do requests of one domain share their most used experts more than requests of two?
-- source  arXiv 2604.09780 Eq. 18-19
-- reads   expert_usage
-- binds   $top_p = 0.8: share of a request's choices that its set has to exceed, 0 to 1.
-- yields  layer_id, num_requests [requests], set_size [experts, mean over requests],
--         within_overlap [Jaccard], between_overlap [Jaccard], difference [within - between],
--         overlap_closed_form [mean of all pairs, and of both by chance]
-- key     layer_id
-- values  set_size, within_overlap, between_overlap, difference
-- null    labels
-- order   layer_id
with summed as (
    select
        layer_id,
        request_id,
        origin,
        domain,
        expert_id,
        num_choices,
        dense_rank() over (order by request_id) as number,
        dense_rank() over (order by origin) as origin_number,
        sum(num_choices) over (partition by layer_id, request_id) as total,
        sum(num_choices) over (
            partition by layer_id, request_id
            order by num_choices desc, expert_id
            rows between unbounded preceding and current row
        ) as so_far
    from expert_usage
),
members as (
    select layer_id, number, origin_number, domain, expert_id
    from summed
    where so_far - num_choices <= $top_p * total
),
sets as (
    select layer_id, number, origin_number, domain, count(*) as size
    from members
    group by layer_id, number, origin_number, domain
),
shared as (
    select one.layer_id, one.number, two.number as other_number, count(*) as num_shared
    from members as one
    join members as two
        on one.layer_id = two.layer_id
        and one.expert_id = two.expert_id
        and one.number < two.number
        and one.origin_number <> two.origin_number
    group by one.layer_id, one.number, two.number
),
compared as (
    select
        shared.layer_id,
        case when one.domain = two.domain then 1 else 0 end as same_domain,
        shared.num_shared / cast(one.size + two.size - shared.num_shared as double) as overlap
    from shared
    join sets as one on shared.layer_id = one.layer_id and shared.number = one.number
    join sets as two on shared.layer_id = two.layer_id and shared.other_number = two.number
),
overlap_sums as (
    select
        layer_id,
        sum(overlap * same_domain) as within_sum,
        sum(overlap * (1 - same_domain)) as between_sum
    from compared
    group by layer_id
),
copies as (
    select layer_id, domain, origin_number, count(*) as num_copies, sum(size) as size_sum
    from sets
    group by layer_id, domain, origin_number
),
domain_sizes as (
    select
        layer_id,
        domain,
        cast(sum(num_copies) as double) as num_requests,
        cast(sum(num_copies * num_copies) as double) as num_same,
        sum(size_sum) as size_sum
    from copies
    group by layer_id, domain
),
sizes as (
    select
        layer_id,
        sum(num_requests) as num_requests,
        (sum(num_requests * num_requests) - sum(num_same)) / 2 as num_within,
        (sum(num_requests) * sum(num_requests) - sum(num_requests * num_requests)) / 2
            as num_between,
        sum(size_sum) as size_sum
    from domain_sizes
    group by layer_id
),
means as (
    select
        sizes.layer_id,
        sizes.num_requests,
        sizes.size_sum / sizes.num_requests as set_size,
        coalesce(overlap_sums.within_sum, 0) / nullif(sizes.num_within, 0) as within_overlap,
        coalesce(overlap_sums.between_sum, 0) / nullif(sizes.num_between, 0) as between_overlap,
        (coalesce(overlap_sums.within_sum, 0) + coalesce(overlap_sums.between_sum, 0))
            / nullif(sizes.num_within + sizes.num_between, 0) as overlap
    from sizes
    left join overlap_sums on sizes.layer_id = overlap_sums.layer_id
)
select
    layer_id,
    cast(num_requests as bigint) as num_requests,
    set_size,
    within_overlap,
    between_overlap,
    within_overlap - between_overlap as difference,
    overlap as overlap_closed_form
from means
order by layer_id
