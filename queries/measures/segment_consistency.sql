-- segment_consistency: how well all of a segment is served by its own most used experts.
--
-- Segments are windows of $segment tokens that slide over a request and phase by one token; f is
-- how often an expert is chosen in one. A rule that keeps an expert for a whole segment where
-- f >= a is right for f of its $segment tokens and wrong for the others. F1 weighs both:
--
--     F1(a) = 2 sum of f over segments with f >= a / ($segment * their number + sum of all f)
--
-- The best F1 over all a that occur (of equal ones the smallest) is the segment routing best
-- performance (SRP): of each expert, and of a layer, with one a for all of its experts, in rows
-- without an expert_id. Rho is what the rule keeps over what is chosen. Requests with fewer tokens
-- than a segment in a phase have no segment; the phases of the scope are counted together. An
-- expert that is often chosen has a high SRP in any order of tokens, so the null changes the places
-- of a request's tokens.
--
-- asks    Do neighbouring tokens keep to the same experts, so that they can stay loaded?
-- source  Local routing consistency (arXiv 2505.16056), SRP and rho; code ljcleo/moe-lrc
-- reads   expert_choices, routed_tokens, experts
-- binds   $segment = 16: tokens of a segment.
-- yields  layer_id, expert_id [none: all experts of the layer], num_segments [segments],
--         num_choices [choices, once for each segment that holds them], threshold [a, choices],
--         srp [best F1, 0 to 1], rho [kept over chosen]
-- key     layer_id, expert_id
-- values  srp, rho
-- null    order
-- order   layer_id, expert_id with none first
with spans as (
    select
        request_id,
        layer_id,
        phase,
        min(position) as first_position,
        max(position) as last_position
    from routed_tokens
    group by request_id, layer_id, phase
    having count(*) >= $segment
),
segments as (
    select layer_id, sum(last_position - first_position + 2 - $segment) as num_segments
    from spans
    group by layer_id
),
changes as (
    -- A choice is in the segments that end at its token and at the $segment - 1 tokens behind it.
    select request_id, layer_id, phase, expert_id, position as place, 1 as step
    from expert_choices
    union all
    select request_id, layer_id, phase, expert_id, position + $segment as place, -1 as step
    from expert_choices
),
levels as (
    -- f of the segments that end at place or later, before the next change. Changes at one place
    -- count together; all but one of them are followed at once.
    select
        request_id,
        layer_id,
        phase,
        expert_id,
        place,
        cast(sum(step) over (
            partition by request_id, layer_id, phase, expert_id order by place
        ) as integer) as f,
        lead(place) over (
            partition by request_id, layer_id, phase, expert_id order by place
        ) as next_place
    from changes
),
held as (
    select
        levels.layer_id,
        levels.expert_id,
        levels.f,
        sum(
            greatest(
                least(levels.next_place - 1, spans.last_position)
                - greatest(levels.place, spans.first_position + $segment - 1)
                + 1,
                0
            )
        ) as num_segments
    from levels
    join spans
        on levels.request_id = spans.request_id
        and levels.layer_id = spans.layer_id
        and levels.phase = spans.phase
    where levels.f > 0
    group by levels.layer_id, levels.expert_id, levels.f
),
counts as (
    select layer_id, expert_id, f, num_segments
    from held
    where num_segments > 0
    union all
    select layer_id, null as expert_id, f, sum(num_segments) as num_segments
    from held
    where num_segments > 0
    group by layer_id, f
),
kept as (
    select
        layer_id,
        expert_id,
        f,
        cast(sum(num_segments) over (
            partition by layer_id, expert_id order by f desc
        ) as double) as num_kept,
        cast(sum(f * num_segments) over (
            partition by layer_id, expert_id order by f desc
        ) as double) as num_right,
        cast(sum(f * num_segments) over (
            partition by layer_id, expert_id
        ) as double) as num_choices
    from counts
),
scores as (
    select
        layer_id,
        expert_id,
        f,
        num_choices,
        2 * num_right / ($segment * num_kept + num_choices) as f1,
        $segment * num_kept / num_choices as rho
    from kept
),
ranked as (
    select
        layer_id,
        expert_id,
        f,
        num_choices,
        f1,
        rho,
        row_number() over (partition by layer_id, expert_id order by f1 desc, f) as place
    from scores
),
grid as (
    select layer_id, expert_id
    from experts
    union all
    select distinct layer_id, cast(null as smallint) as expert_id
    from experts
)
select
    grid.layer_id,
    grid.expert_id,
    cast(coalesce(segments.num_segments, 0) as bigint) as num_segments,
    cast(coalesce(ranked.num_choices, 0) as bigint) as num_choices,
    ranked.f as threshold,
    ranked.f1 as srp,
    ranked.rho
from grid
left join segments on grid.layer_id = segments.layer_id
left join ranked
    on grid.layer_id = ranked.layer_id
    and coalesce(grid.expert_id, -1) = coalesce(ranked.expert_id, -1)
    and ranked.place = 1
order by grid.layer_id, grid.expert_id nulls first
