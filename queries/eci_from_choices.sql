-- eci_from_choices: mean gate weight of each expert over the tokens of a domain, from all rows.
--
-- What eci yields, summed again from every recorded choice: slow, for checks.
--
-- source  COMMITTEEAUDIT (arXiv 2601.03425 v2) Eq. 2, restricted to the chosen experts
-- reads   choices, requests
-- binds   $run_id
--         $tokens: last-prompt, prompt, generated, or all (prompt and generated)
-- yields  layer_id, domain, expert_id, num_choices [choices], num_tokens [tokens of the domain],
--         eci [gate weight per token]
-- order   layer_id, domain, eci descending, expert_id
with scoped as (
    select choices.layer_id, choices.domain, choices.rank, choices.expert_id, choices.gate_weight
    from choices
    join requests using (run_id, request_id)
    where run_id = $run_id
        and requests.status = 'complete'
        and (
            choices.phase = $tokens
            or $tokens = 'all'
            or ($tokens = 'last-prompt' and choices.position = requests.num_prompt_tokens - 1)
        )
),
sizes as (
    select layer_id, domain, count(*) filter (where rank = 1) as num_tokens
    from scoped
    group by layer_id, domain
)
select
    layer_id,
    domain,
    expert_id,
    count(*) as num_choices,
    any_value(num_tokens) as num_tokens,
    sum(gate_weight::double) / any_value(num_tokens) as eci
from scoped
join sizes using (layer_id, domain)
group by layer_id, domain, expert_id
order by layer_id, domain, eci desc, expert_id
