-- token_similarity: how many experts two tokens share, of one request, one domain and two domains.
--
-- Overlap of two tokens is the number of experts that both chose over k, which is 1 less their
-- Hamming distance over 2 k. All pairs count once, so long requests weigh more. Sums over pairs are
-- made from counts: the overlaps of all pairs of a group add up to the sum over experts of the
-- square of its count. Even, independent choices overlap by k / E; uneven experts by more, in all
-- three columns alike. The null exchanges domains of requests, so what pairs of one domain have
-- over pairs of two is chance; what pairs of one request have is the same in every draw.
--
-- asks    Are tokens of a request, or of a domain, routed alike?
-- source  "The Myth of Expert Specialization" (arXiv 2604.09780) Eq. 11, with k as the normaliser
-- reads   expert_usage, model
-- binds   none
-- yields  layer_id, within_request [mean share of k], within_domain [mean share of k, of pairs of
--         two requests], across_domains [mean share of k], difference [within_domain less
--         across_domains], closed_form [k / E], num_within_request [pairs of tokens],
--         num_within_domain [pairs of tokens], num_across_domains [pairs of tokens]
-- key     layer_id
-- values  within_request, within_domain, across_domains, difference
-- null    labels
-- order   layer_id
with used as (
    -- Whole requests are rows of expert_id -1 here: their tokens, so that pairs and overlaps are
    -- sums of the same squares.
    select layer_id, request_id, origin, domain, expert_id, cast(num_choices as double) as n
    from expert_usage
    union all
    select
        expert_usage.layer_id,
        expert_usage.request_id,
        expert_usage.origin,
        expert_usage.domain,
        -1 as expert_id,
        sum(expert_usage.num_choices) / cast(max(model.top_k) as double) as n
    from expert_usage
    cross join model
    group by
        expert_usage.layer_id,
        expert_usage.request_id,
        expert_usage.origin,
        expert_usage.domain
),
by_origin as (
    -- Copies of a request that was drawn twice are no pair of two requests.
    select layer_id, expert_id, domain, origin, sum(n) as n, sum(n * n - n) as within_request
    from used
    group by layer_id, expert_id, domain, origin
),
by_domain as (
    select
        layer_id,
        expert_id,
        domain,
        sum(n) as n,
        sum(n * n) as origin_squares,
        sum(within_request) as within_request
    from by_origin
    group by layer_id, expert_id, domain
),
by_expert as (
    -- Twice the overlaps by expert; twice the pairs for -1.
    select
        layer_id,
        expert_id,
        sum(within_request) as within_request,
        sum(n * n - origin_squares) as within_domain,
        sum(n) * sum(n) - sum(n * n) as across_domains
    from by_domain
    group by layer_id, expert_id
),
sums as (
    select
        layer_id,
        sum(case when expert_id >= 0 then within_request else 0 end) as request_overlaps,
        sum(case when expert_id >= 0 then within_domain else 0 end) as domain_overlaps,
        sum(case when expert_id >= 0 then across_domains else 0 end) as across_overlaps,
        sum(case when expert_id < 0 then within_request else 0 end) as request_pairs,
        sum(case when expert_id < 0 then within_domain else 0 end) as domain_pairs,
        sum(case when expert_id < 0 then across_domains else 0 end) as across_pairs
    from by_expert
    group by layer_id
),
means as (
    select
        sums.layer_id,
        sums.request_overlaps / nullif(sums.request_pairs * model.top_k, 0) as within_request,
        sums.domain_overlaps / nullif(sums.domain_pairs * model.top_k, 0) as within_domain,
        sums.across_overlaps / nullif(sums.across_pairs * model.top_k, 0) as across_domains,
        model.top_k / cast(model.num_experts as double) as closed_form,
        sums.request_pairs,
        sums.domain_pairs,
        sums.across_pairs
    from sums
    cross join model
)
select
    layer_id,
    within_request,
    within_domain,
    across_domains,
    within_domain - across_domains as difference,
    closed_form,
    cast(request_pairs / 2 as bigint) as num_within_request,
    cast(domain_pairs / 2 as bigint) as num_within_domain,
    cast(across_pairs / 2 as bigint) as num_across_domains
from means
order by layer_id
