-- audit/budget_choices: ECI where every token kept fewer of the experts it chose.
--
-- Choices stand by descending gate weight, so the first are those a smaller budget keeps.
--
-- source  COMMITTEEAUDIT (arXiv 2601.03425 v2) section 4.3 and Figure 5, Eq. 2 on the experts kept
-- reads   routing, requests, numbered: requests that count, by request_id, with domain_number
-- binds   $run_id
--         $tokens: last-prompt, prompt, generated, or all (prompt and generated)
--         $budget: experts kept of each token
--         $renormalise: whether the kept weights are rescaled to sum to 1
-- yields  layer_id, domain_number, expert_id, contribution [gate weight per token]
-- order   layer_id, domain_number, expert_id
with scoped as (
    select
        routing.layer_id,
        numbered.domain_number,
        routing.expert_ids[1:$budget] as expert_ids,
        routing.gate_weights[1:$budget]::double[] as weights
    from routing
    join numbered on routing.request_id = numbered.request_id
    join requests
        on routing.run_id = requests.run_id and routing.request_id = requests.request_id
    where routing.run_id = $run_id
        and (
            $tokens = 'all'
            or ($tokens = 'prompt' and routing.position < requests.num_prompt_tokens)
            or ($tokens = 'generated' and routing.position >= requests.num_prompt_tokens)
            or ($tokens = 'last-prompt' and routing.position = requests.num_prompt_tokens - 1)
        )
),
sizes as (
    select layer_id, domain_number, count(*) as num_tokens
    from scoped
    group by layer_id, domain_number
),
kept as (
    select
        layer_id,
        domain_number,
        case when $renormalise then nullif(list_sum(weights), 0) else 1 end as whole,
        unnest(expert_ids) as expert_id,
        unnest(weights) as weight
    from scoped
)
select
    kept.layer_id,
    kept.domain_number,
    kept.expert_id,
    coalesce(sum(weight / whole), 0) / any_value(num_tokens) as contribution
from kept
join sizes on kept.layer_id = sizes.layer_id and kept.domain_number = sizes.domain_number
group by kept.layer_id, kept.domain_number, kept.expert_id
order by kept.layer_id, kept.domain_number, kept.expert_id
