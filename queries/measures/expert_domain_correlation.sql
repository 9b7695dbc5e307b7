-- expert_domain_correlation: how far use of an expert goes with a domain, over requests.
--
-- The correlation of an expert's share of a request's choices with whether the request is of the
-- domain (point-biserial, each request counted once, long or short). It is null where all requests
-- use the expert alike, and where there is one domain. If domains are exchanged it is 0 on average,
-- with variance 1 / (requests - 1). A small domain cannot tell much: see the band.
--
-- asks    Which experts are used more, or less, in the requests of a domain?
-- source  arXiv 2510.16968 and DES-MoE (arXiv 2509.16882) for use of experts by domain; the
--         correlation is ours
-- reads   expert_usage, experts
-- binds   none
-- yields  domain, layer_id, expert_id, num_requests [requests of the domain],
--         share_inside [mean share of choices in the domain's requests],
--         share_outside [mean share of choices in others'], correlation [-1 to 1]
-- key     domain, layer_id, expert_id
-- values  correlation
-- null    labels
-- order   domain, layer_id, expert_id
with totals as (
    select layer_id, request_id, domain, cast(sum(num_choices) as double) as total
    from expert_usage
    group by layer_id, request_id, domain
),
shares as (
    select
        expert_usage.layer_id,
        expert_usage.domain,
        expert_usage.expert_id,
        sum(expert_usage.num_choices / totals.total) as share_sum,
        sum(
            (expert_usage.num_choices / totals.total) * (expert_usage.num_choices / totals.total)
        ) as square_sum
    from expert_usage
    join totals
        on expert_usage.layer_id = totals.layer_id and expert_usage.request_id = totals.request_id
    group by expert_usage.layer_id, expert_usage.domain, expert_usage.expert_id
),
domain_sizes as (
    select layer_id, domain, cast(count(*) as double) as num_requests
    from totals
    group by layer_id, domain
),
layers as (
    select layer_id, sum(num_requests) as num_requests
    from domain_sizes
    group by layer_id
),
moments as (
    select
        shares.layer_id,
        shares.expert_id,
        sum(shares.share_sum) as share_sum,
        sum(shares.share_sum) / max(layers.num_requests) as mean,
        sum(shares.square_sum) / max(layers.num_requests) as mean_square
    from shares
    join layers on shares.layer_id = layers.layer_id
    group by shares.layer_id, shares.expert_id
),
grid as (
    select
        domain_sizes.domain,
        experts.layer_id,
        experts.expert_id,
        domain_sizes.num_requests as num_inside,
        layers.num_requests - domain_sizes.num_requests as num_outside,
        layers.num_requests,
        coalesce(shares.share_sum, 0) as inside_sum,
        coalesce(moments.share_sum, 0) - coalesce(shares.share_sum, 0) as outside_sum,
        case
            when moments.mean_square - moments.mean * moments.mean > 1e-12 * moments.mean_square
                then sqrt(moments.mean_square - moments.mean * moments.mean)
        end as spread
    from experts
    join domain_sizes on experts.layer_id = domain_sizes.layer_id
    join layers on experts.layer_id = layers.layer_id
    left join moments
        on experts.layer_id = moments.layer_id and experts.expert_id = moments.expert_id
    left join shares
        on experts.layer_id = shares.layer_id
        and experts.expert_id = shares.expert_id
        and domain_sizes.domain = shares.domain
)
select
    domain,
    layer_id,
    expert_id,
    cast(num_inside as bigint) as num_requests,
    inside_sum / num_inside as share_inside,
    outside_sum / nullif(num_outside, 0) as share_outside,
    (inside_sum / num_inside - outside_sum / nullif(num_outside, 0))
        * sqrt(num_inside * num_outside) / num_requests / spread as correlation
from grid
order by domain, layer_id, expert_id
