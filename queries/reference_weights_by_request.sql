-- reference_weights_by_request: what the COMMITTEEAUDIT code ranks experts by, from requests.
--
-- What reference_weights yields, from the sums per request (of one token each): for domains
-- other than those of the capture, and for runs with requests that do not count.
--
-- source  github The-FinAI/CommitteeAudit be5c1d7, get_frequency_and_weight_data.py
-- reads   usage, requests
-- binds   $run_id
--         $domains: JSON object {old label: new domain}; a request is looked up by its label
--         `subject`, then by its domain, and else keeps its domain; '{}' changes nothing
-- yields  layer_id, domain, expert_id, num_choices [choices], num_tokens [last prompt tokens of
--         the domain, N], normalised_weight
-- order   layer_id, domain, normalised_weight descending, expert_id
with renamed as (
    select $domains::json::map(varchar, varchar) as names
),
counted as (
    select request_id, coalesce(names[labels['subject']], names[domain], domain) as domain
    from requests, renamed
    where run_id = $run_id and status = 'complete'
),
used as (
    select layer_id, counted.domain, num_tokens, expert_ids, weight_sum
    from usage
    join counted using (request_id)
    where run_id = $run_id and phase = 'last-prompt'
),
sizes as (
    select layer_id, domain, sum(num_tokens)::bigint as num_tokens
    from used
    group by layer_id, domain
),
entries as (
    select layer_id, domain, unnest(expert_ids) as expert_id, unnest(weight_sum) as weight
    from used
),
extremes as (
    select
        layer_id,
        domain,
        expert_id,
        count(*) as num_choices,
        any_value(num_tokens) as num_tokens,
        sum(weight) as weight_sum,
        if(count(*) < any_value(num_tokens), least(min(weight), 0), min(weight)) as low,
        if(count(*) < any_value(num_tokens), greatest(max(weight), 0), max(weight)) as high
    from entries
    join sizes using (layer_id, domain)
    group by layer_id, domain, expert_id
)
select
    layer_id,
    domain,
    expert_id,
    num_choices,
    num_tokens,
    -- All weights equal: exactly zero, which sum / N - low may miss by a rounding.
    if(high = low, 0, (weight_sum / num_tokens - low) / (high - low + 1e-6))
        * (num_choices / num_tokens) as normalised_weight
from extremes
order by layer_id, domain, normalised_weight desc, expert_id
