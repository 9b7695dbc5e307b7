-- parts/loads_of_runs: choices of each expert and of each layer, of this run and of the other.
--
-- reads   expert_usage, other_expert_usage
-- binds   none
-- yields  used, other_used, totals, other_totals
-- order   none
used as (
    select layer_id, expert_id, cast(sum(num_choices) as double) as num_choices
    from expert_usage
    group by layer_id, expert_id
),
other_used as (
    select layer_id, expert_id, cast(sum(num_choices) as double) as num_choices
    from other_expert_usage
    group by layer_id, expert_id
),
totals as (
    select layer_id, sum(num_choices) as total
    from used
    group by layer_id
),
other_totals as (
    select layer_id, sum(num_choices) as total
    from other_used
    group by layer_id
)
