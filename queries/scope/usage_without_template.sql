-- scope/usage_without_template: what `usage` holds, without the tokens that all prompts share.
--
-- Made again from rows. A request without other tokens in a phase has no row.
--
-- reads   routing, requests, asked: the run, and how many tokens its template has on either side
-- binds   none
-- yields  run_id, request_id, phase, layer_id, num_tokens [tokens], expert_ids [list, ascending],
--         num_choices [list, choices], weight_sum [list, gate weights]
-- order   none
with kept as (
    select
        run_id,
        request_id,
        layer_id,
        expert_ids,
        gate_weights,
        if(position < num_prompt_tokens, 'prompt', 'generated') as phase,
        position = num_prompt_tokens - 1 as is_last
    from routing
    join requests using (run_id, request_id)
    join asked using (run_id)
    where status = 'complete'
        and position >= template_prefix
        and (position < num_prompt_tokens - template_suffix or position >= num_prompt_tokens)
),
phases as (
    select * exclude (is_last)
    from kept
    union all by name
    select * exclude (is_last) replace ('last-prompt' as phase)
    from kept
    where is_last
),
sizes as (
    select run_id, request_id, phase, layer_id, count(*)::integer as num_tokens
    from phases
    group by all
),
chosen as (
    select
        run_id,
        request_id,
        phase,
        layer_id,
        unnest(expert_ids) as expert_id,
        unnest(gate_weights)::double as gate_weight
    from phases
),
sums as (
    select
        run_id,
        request_id,
        phase,
        layer_id,
        expert_id,
        count(*)::integer as num_choices,
        sum(gate_weight) as weight_sum
    from chosen
    group by all
)
select
    run_id,
    request_id,
    phase,
    layer_id,
    any_value(num_tokens) as num_tokens,
    list(expert_id order by expert_id) as expert_ids,
    list(num_choices order by expert_id) as num_choices,
    list(weight_sum order by expert_id) as weight_sum
from sums
join sizes using (run_id, request_id, phase, layer_id)
group by run_id, request_id, phase, layer_id
