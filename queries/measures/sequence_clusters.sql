-- sequence_clusters: how well what requests use tells their domain, without any training.
--
-- Requests are compared by the cosine of their choices of experts. nearest_same_domain is the share
-- of requests whose most alike other request is of their own domain; own_centroid that of requests
-- nearest to the mean usage of their own domain, themselves left out of it. A request that is alone
-- in its domain is never right. Copies of one request are left out together. Cosines that agree to
-- 12 digits are tied: the first request_id, or domain, wins. If domains are exchanged, the first
-- share is nearest_closed_form on average, sum of n_d (n_d - 1) / (n (n - 1)). The nearest request
-- takes products of all pairs, layers x requests^2, in each draw again: take some of many requests.
-- The published groups are k-means of what another model makes of the text, which no lake holds.
-- K-means of usage would be another measure all the same, and one that its start decides, where
-- domains are known: so there is none. To cluster requests, read usage from the lake.
--
-- asks    Does the use of experts group requests by their domain?
-- source  MoCE (arXiv 2509.10513) for groups of sequences; its sequence embeddings and k-means are
--         replaced by usage and neighbours
-- reads   expert_usage, nearest_requests
-- binds   none
-- yields  layer_id, num_requests [requests], nearest_same_domain [share of requests],
--         nearest_closed_form [mean by chance], own_centroid [share of requests]
-- key     layer_id
-- values  nearest_same_domain, own_centroid
-- null    labels
-- order   layer_id
with totals as (
    select
        layer_id,
        request_id,
        origin,
        domain,
        cast(sum(num_choices) as double) as total,
        sqrt(sum(cast(num_choices as double) * num_choices)) as norm
    from expert_usage
    group by layer_id, request_id, origin, domain
),
nearest as (
    select
        nearest_requests.layer_id,
        sum(case when mine.domain = theirs.domain then 1 else 0 end) as num_same
    from nearest_requests
    join totals as mine
        on nearest_requests.layer_id = mine.layer_id
        and nearest_requests.request_id = mine.request_id
    join totals as theirs
        on nearest_requests.layer_id = theirs.layer_id
        and nearest_requests.nearest_id = theirs.request_id
    group by nearest_requests.layer_id
),
shares as (
    select
        expert_usage.layer_id,
        expert_usage.request_id,
        expert_usage.domain,
        expert_usage.expert_id,
        expert_usage.num_choices / totals.total as share
    from expert_usage
    join totals
        on expert_usage.layer_id = totals.layer_id and expert_usage.request_id = totals.request_id
),
domain_sums as (
    select layer_id, domain, expert_id, sum(share) as share_sum
    from shares
    group by layer_id, domain, expert_id
),
domain_squares as (
    select layer_id, domain, sum(share_sum * share_sum) as square
    from domain_sums
    group by layer_id, domain
),
domain_products as (
    select
        shares.layer_id,
        shares.request_id,
        domain_sums.domain,
        sum(shares.share * domain_sums.share_sum) as product
    from shares
    join domain_sums
        on shares.layer_id = domain_sums.layer_id and shares.expert_id = domain_sums.expert_id
    group by shares.layer_id, shares.request_id, domain_sums.domain
),
copies as (
    select layer_id, domain, origin, cast(count(*) as double) as num_copies
    from totals
    group by layer_id, domain, origin
),
domain_sizes as (
    select layer_id, domain, sum(num_copies) as num_requests, count(*) as num_origins
    from copies
    group by layer_id, domain
),
rivals as (
    select
        totals.layer_id,
        totals.request_id,
        totals.domain,
        domain_squares.domain as other_domain,
        coalesce(domain_products.product, 0) as product,
        domain_squares.square,
        (totals.norm / totals.total) * (totals.norm / totals.total) as own_square,
        case when totals.domain = domain_squares.domain then copies.num_copies else 0 end as own
    from totals
    join copies on totals.layer_id = copies.layer_id and totals.origin = copies.origin
    join domain_squares on totals.layer_id = domain_squares.layer_id
    join domain_sizes
        on domain_squares.layer_id = domain_sizes.layer_id
        and domain_squares.domain = domain_sizes.domain
    left join domain_products
        on totals.layer_id = domain_products.layer_id
        and totals.request_id = domain_products.request_id
        and domain_squares.domain = domain_products.domain
    where totals.domain <> domain_squares.domain or domain_sizes.num_origins > 1
),
centroids as (
    select
        layer_id,
        request_id,
        case when domain = other_domain then 1 else 0 end as same_domain,
        row_number() over (
            partition by layer_id, request_id
            order by
                round(
                    (product - own * own_square)
                        / sqrt(own_square * (square - 2 * own * product + own * own * own_square)),
                    12
                ) desc,
                other_domain
        ) as place
    from rivals
),
own as (
    select layer_id, sum(same_domain) as num_same
    from centroids
    where place = 1
    group by layer_id
),
sizes as (
    select
        layer_id,
        sum(num_requests) as num_requests,
        sum(num_requests * (num_requests - 1)) as num_pairs
    from domain_sizes
    group by layer_id
)
select
    sizes.layer_id,
    cast(sizes.num_requests as bigint) as num_requests,
    nearest.num_same / sizes.num_requests as nearest_same_domain,
    sizes.num_pairs / nullif(sizes.num_requests * (sizes.num_requests - 1), 0)
        as nearest_closed_form,
    own.num_same / sizes.num_requests as own_centroid
from sizes
left join nearest on sizes.layer_id = nearest.layer_id
left join own on sizes.layer_id = own.layer_id
order by sizes.layer_id
