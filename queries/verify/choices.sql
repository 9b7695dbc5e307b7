-- verify/choices: choices that no router can have made, by request and layer.
--
-- One line for each request and layer, with its first such position.
--
-- reads   routing, runs
-- binds   $run_id
-- yields  request_id, layer_id, detail
-- order   request_id, layer_id
with sizes as (
    select num_experts, top_k
    from runs
    where run_id = $run_id
),
judged as (
    select
        request_id,
        layer_id,
        position,
        case
            when len(expert_ids) <> top_k or len(gate_weights) <> top_k
                then len(expert_ids) || ' experts and ' || len(gate_weights)
                    || ' weights where top-k is ' || top_k
            when list_min(expert_ids) < 0 then 'expert ' || list_min(expert_ids)
            when list_max(expert_ids) >= num_experts
                then 'expert ' || list_max(expert_ids) || ' of ' || num_experts
            when len(list_distinct(expert_ids)) < top_k then 'an expert twice'
            -- The sum is finite where every weight is, and as floats may not be, summed as doubles.
            when not isfinite(list_sum(gate_weights::double[])) then 'a weight that is not finite'
            when list_reverse_sort(gate_weights) <> gate_weights
                then 'weights that do not descend'
        end as fault
    from routing
    cross join sizes
    where run_id = $run_id
)
select
    request_id,
    layer_id,
    arg_min(fault, position) || ' at position ' || min(position)
        || if(count(*) > 1, ' and at ' || count(*) - 1 || ' more', '') as detail
from judged
where fault is not null
group by request_id, layer_id
order by request_id, layer_id
