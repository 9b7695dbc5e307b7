-- verify/usage: requests whose sums in usage are not those of their rows.
--
-- Sums of weights may differ in the last bits: they are added in another order. What usage holds of
-- requests that are not complete, verify/strangers tells.
--
-- reads   requests, routing, usage
-- binds   $run_id
-- yields  request_id, layer_id, detail
-- order   request_id, layer_id
with prompts as (
    select request_id, num_prompt_tokens
    from requests
    where run_id = $run_id and status = 'complete'
),
chosen as (
    select
        request_id,
        layer_id,
        if(position < num_prompt_tokens, 'prompt', 'generated') as phase,
        position = num_prompt_tokens - 1 as is_last,
        unnest(expert_ids) as expert_id,
        unnest(gate_weights)::double as gate_weight
    from routing
    join prompts using (request_id)
    where run_id = $run_id
),
by_phase as (
    select
        request_id,
        layer_id,
        phase,
        expert_id,
        count(*) as num_choices,
        sum(gate_weight) as weight_sum
    from chosen
    group by request_id, layer_id, phase, expert_id
    union all
    select request_id, layer_id, 'last-prompt', expert_id, count(*), sum(gate_weight)
    from chosen
    where is_last
    group by request_id, layer_id, expert_id
),
stored as (
    select
        request_id,
        layer_id,
        phase,
        unnest(expert_ids) as expert_id,
        unnest(num_choices) as num_choices,
        unnest(weight_sum) as weight_sum
    from usage
    join prompts using (request_id)
    where run_id = $run_id
)
select request_id, layer_id, count(*) || ' sums of usage differ from the rows' as detail
from by_phase
full join stored using (request_id, layer_id, phase, expert_id)
where by_phase.num_choices is distinct from stored.num_choices
    or by_phase.weight_sum is null
    or stored.weight_sum is null
    or not abs(by_phase.weight_sum - stored.weight_sum)
        <= 1e-9 * greatest(abs(by_phase.weight_sum), 1)
group by request_id, layer_id
order by request_id, layer_id
