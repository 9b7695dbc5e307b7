-- inputs/nearest_requests: the other request whose choices of experts are most like a request's.
--
-- By the cosine of their numbers of choices, in each layer on its own. Copies of one request are
-- no others. Cosines that agree to 12 digits are tied: the first request_id wins. Spark and Polars
-- run this text, in which every two requests that share an expert are rows; DuckDB compares arrays
-- (tracer/analysis/measures/nearest.py), some requests with all others at a time.
--
-- reads   expert_usage
-- binds   none (a view)
-- yields  layer_id, request_id, nearest_id [request_id of the other]
-- order   none
with norms as (
    select
        layer_id,
        request_id,
        origin,
        sqrt(sum(cast(num_choices as double) * num_choices)) as norm
    from expert_usage
    group by layer_id, request_id, origin
),
units as (
    select
        expert_usage.layer_id,
        expert_usage.request_id,
        expert_usage.expert_id,
        expert_usage.num_choices / norms.norm as length
    from expert_usage
    join norms
        on expert_usage.layer_id = norms.layer_id and expert_usage.request_id = norms.request_id
),
cosines as (
    select
        one.layer_id,
        one.request_id,
        two.request_id as other_id,
        sum(one.length * two.length) as cosine
    from units as one
    join units as two
        on one.layer_id = two.layer_id
        and one.expert_id = two.expert_id
        and one.request_id < two.request_id
    group by one.layer_id, one.request_id, two.request_id
),
both_ways as (
    select layer_id, request_id, other_id, cosine
    from cosines
    union all
    select layer_id, other_id as request_id, request_id as other_id, cosine
    from cosines
),
neighbours as (
    select
        one.layer_id,
        one.request_id,
        two.request_id as nearest_id,
        row_number() over (
            partition by one.layer_id, one.request_id
            order by round(coalesce(both_ways.cosine, 0), 12) desc, two.request_id
        ) as place
    from norms as one
    join norms as two on one.layer_id = two.layer_id and one.origin <> two.origin
    left join both_ways
        on one.layer_id = both_ways.layer_id
        and one.request_id = both_ways.request_id
        and two.request_id = both_ways.other_id
)
select layer_id, request_id, nearest_id
from neighbours
where place = 1
