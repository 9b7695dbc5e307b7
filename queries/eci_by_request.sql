-- eci_by_request: mean gate weight of each expert over the tokens of a domain, from requests.
--
-- What eci yields, from the sums per request: for domains other than those of the capture, and
-- for runs with requests that do not count (only complete ones do).
--
-- source  COMMITTEEAUDIT (arXiv 2601.03425 v2) Eq. 2, restricted to the chosen experts
-- reads   usage, requests
-- binds   $run_id
--         $tokens: last-prompt, prompt, generated, or all (prompt and generated)
--         $domains: JSON object {old label: new domain}; a request is looked up by its label
--         `subject`, then by its domain, and else keeps its domain; '{}' changes nothing
-- yields  layer_id, domain, expert_id, num_choices [choices], num_tokens [tokens of the domain],
--         eci [gate weight per token]
-- order   layer_id, domain, eci descending, expert_id
with renamed as (
    select $domains::json::map(varchar, varchar) as names
),
counted as (
    select request_id, coalesce(names[labels['subject']], names[domain], domain) as domain
    from requests, renamed
    where run_id = $run_id and status = 'complete'
),
used as (
    select layer_id, counted.domain, num_tokens, expert_ids, num_choices, weight_sum
    from usage
    join counted using (request_id)
    where run_id = $run_id
        and (phase = $tokens or ($tokens = 'all' and phase in ('prompt', 'generated')))
),
sizes as (
    select layer_id, domain, sum(num_tokens)::bigint as num_tokens
    from used
    group by layer_id, domain
),
entries as (
    select
        layer_id,
        domain,
        unnest(expert_ids) as expert_id,
        unnest(num_choices) as num_choices,
        unnest(weight_sum) as weight_sum
    from used
)
select
    layer_id,
    domain,
    expert_id,
    sum(num_choices)::bigint as num_choices,
    any_value(num_tokens) as num_tokens,
    sum(weight_sum) / any_value(num_tokens) as eci
from entries
join sizes using (layer_id, domain)
group by layer_id, domain, expert_id
order by layer_id, domain, eci desc, expert_id
