-- eci_from_choices: mean gate weight of each expert over the tokens of a domain, from all rows.
--
-- What eci yields, summed again from every recorded choice: for checks, and for what sums were not
-- kept of. Unnests `routing` itself and groups by one number, of the domain's number, the layer and
-- the expert, the last two below 32768. What is the same for a whole list is computed before it is
-- unnested. The same over the view `choices` takes longer.
--
-- source  COMMITTEEAUDIT (arXiv 2601.03425 v2) Eq. 2, restricted to the chosen experts
-- reads   requests, routing, runs
-- binds   $run_id
--         $tokens: last-prompt, prompt, generated, or all (prompt and generated)
-- yields  layer_id, domain, expert_id, num_choices [choices], num_tokens [tokens of the domain],
--         eci [gate weight per token]
-- order   layer_id, domain, eci descending, expert_id
with complete as (
    select
        request_id,
        domain,
        dense_rank() over (order by domain) as domain_number,
        num_prompt_tokens
    from requests
    where run_id = $run_id and status = 'complete'
),
domains as (
    select distinct domain_number, domain
    from complete
),
scoped as (
    select
        (domain_number * 32768 + layer_id) * 32768 as first_cell,
        expert_ids,
        gate_weights
    from routing
    join complete using (request_id)
    where run_id = $run_id
        and (
            phase = $tokens
            or $tokens = 'all'
            or ($tokens = 'last-prompt' and position = num_prompt_tokens - 1)
        )
),
chosen as (
    select
        first_cell,
        unnest(expert_ids) as expert_id,
        unnest(gate_weights) as gate_weight
    from scoped
),
cells as (
    select
        first_cell + expert_id as cell,
        count(*) as num_choices,
        sum(gate_weight::double) as weight_sum
    from chosen
    group by cell
),
experts as (
    select
        (cell // 32768 % 32768)::smallint as layer_id,
        cell // 32768 // 32768 as domain_number,
        (cell % 32768)::smallint as expert_id,
        num_choices,
        weight_sum
    from cells
),
sizes as (
    select
        layer_id,
        domain_number,
        (sum(num_choices) // (select top_k from runs where run_id = $run_id))::bigint
            as num_tokens
    from experts
    group by layer_id, domain_number
)
select layer_id, domain, expert_id, num_choices, num_tokens, weight_sum / num_tokens as eci
from experts
join sizes using (layer_id, domain_number)
join domains using (domain_number)
order by layer_id, domain, eci desc, expert_id
