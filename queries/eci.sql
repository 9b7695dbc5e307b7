-- eci: mean gate weight of each expert over the tokens of a domain, from the sums per domain.
--
-- The Expert Contribution Index on what a trace holds: a token that did not choose the expert
-- adds zero; an expert that no token of the domain chose has no row.
--
-- source  COMMITTEEAUDIT (arXiv 2601.03425 v2) Eq. 2, restricted to the chosen experts
-- reads   usage_by_domain, runs
-- binds   $run_id
--         $tokens: last-prompt, prompt, generated, or all (prompt and generated)
-- yields  layer_id, domain, expert_id, num_choices [choices], num_tokens [tokens of the domain],
--         eci [gate weight per token]
-- order   layer_id, domain, eci descending, expert_id
with experts as (
    select
        layer_id,
        domain,
        expert_id,
        sum(num_choices)::bigint as num_choices,
        sum(weight_sum) as weight_sum
    from usage_by_domain
    where run_id = $run_id
        and (phase = $tokens or ($tokens = 'all' and phase in ('prompt', 'generated')))
    group by layer_id, domain, expert_id
),
sizes as (
    select
        layer_id,
        domain,
        (sum(num_choices) // (select top_k from runs where run_id = $run_id))::bigint
            as num_tokens
    from experts
    group by layer_id, domain
)
select layer_id, domain, expert_id, num_choices, num_tokens, weight_sum / num_tokens as eci
from experts
join sizes using (layer_id, domain)
order by layer_id, domain, eci desc, expert_id
