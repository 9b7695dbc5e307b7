-- cache_hits: how many choices a small cache of experts serves if it knows what comes.
--
-- The tokens of a request and phase are cut into segments of $segment one behind the other; a short
-- rest is left out. Before each segment the cache of a layer is filled with the $cache_experts
-- experts that the segment chooses most (of equal ones those with the lowest ids): the most that a
-- cache of this size that changes once a segment can serve. The fixed cache keeps the layer's most
-- chosen experts of all segments for the whole run; what segments gain over it is what order gives.
-- The null changes the places of a request's tokens, so it keeps what requests and domains prefer.
--
-- asks    How large must a cache of experts be, and how much does knowing the next tokens help?
-- source  Local routing consistency (arXiv 2505.16056), segment cache best hit rate (SCH), there
--         with a cache of rho * k experts and sliding windows
-- reads   expert_choices, routed_tokens, experts, model
-- binds   $segment = 16: tokens of a segment, the foresight.
--         $cache_experts = 16: experts that a layer's cache holds.
-- yields  layer_id, num_segments [segments], num_choices [choices in them],
--         hit_rate [share of choices], fixed_hit_rate [share of choices],
--         gain [hit_rate less fixed_hit_rate], even_share [share of choices that a cache without
--         knowledge serves where experts are even]
-- key     layer_id
-- values  hit_rate, fixed_hit_rate, gain
-- null    order
-- order   layer_id
with spans as (
    select
        request_id,
        layer_id,
        phase,
        min(position) as first_position,
        floor((max(position) - min(position) + 1) / cast($segment as double)) as num_segments
    from routed_tokens
    group by request_id, layer_id, phase
),
used as (
    select
        expert_choices.request_id,
        expert_choices.layer_id,
        expert_choices.phase,
        floor(
            (expert_choices.position - spans.first_position) / cast($segment as double)
        ) as segment,
        expert_choices.expert_id,
        count(*) as num_choices
    from expert_choices
    join spans
        on expert_choices.request_id = spans.request_id
        and expert_choices.layer_id = spans.layer_id
        and expert_choices.phase = spans.phase
    where expert_choices.position - spans.first_position < spans.num_segments * $segment
    group by
        expert_choices.request_id,
        expert_choices.layer_id,
        expert_choices.phase,
        floor((expert_choices.position - spans.first_position) / cast($segment as double)),
        expert_choices.expert_id
),
ranked as (
    select
        layer_id,
        num_choices,
        row_number() over (
            partition by request_id, layer_id, phase, segment
            order by num_choices desc, expert_id
        ) as place
    from used
),
hits as (
    select
        layer_id,
        sum(num_choices) as num_choices,
        sum(case when place <= $cache_experts then num_choices else 0 end) as num_hits
    from ranked
    group by layer_id
),
loads as (
    select
        layer_id,
        num_choices,
        row_number() over (partition by layer_id order by num_choices desc, expert_id) as place
    from (
        select layer_id, expert_id, sum(num_choices) as num_choices
        from used
        group by layer_id, expert_id
    ) as by_expert
),
fixed as (
    select layer_id, sum(num_choices) as num_hits
    from loads
    where place <= $cache_experts
    group by layer_id
),
segments as (
    select layer_id, sum(num_segments) as num_segments
    from spans
    group by layer_id
)
select
    layers.layer_id,
    cast(coalesce(segments.num_segments, 0) as bigint) as num_segments,
    cast(coalesce(hits.num_choices, 0) as bigint) as num_choices,
    hits.num_hits / cast(hits.num_choices as double) as hit_rate,
    fixed.num_hits / cast(hits.num_choices as double) as fixed_hit_rate,
    (hits.num_hits - fixed.num_hits) / cast(hits.num_choices as double) as gain,
    least($cache_experts / cast(model.num_experts as double), 1.0) as even_share
from (select distinct layer_id from experts) as layers
left join segments on layers.layer_id = segments.layer_id
left join hits on layers.layer_id = hits.layer_id
left join fixed on layers.layer_id = fixed.layer_id
cross join model
order by layers.layer_id
