-- bootstrap/requests: complete requests that have recorded tokens in a scope, numbered.
--
-- reads   requests, usage
-- binds   $run_id
--         $tokens: last-prompt, prompt, generated, or all (prompt and generated)
--         $domains: JSON object {old label: new domain}; a request is looked up by its label
--         `subject`, then by its domain, and else keeps its domain; '{}' changes nothing
-- yields  request_id, request_number [from 0, by request_id], domain, domain_number [from 0, by
--         domain]
-- order   request_number
with renamed as (
    select $domains::json::map(varchar, varchar) as names
),
recorded as (
    select distinct request_id
    from usage
    where run_id = $run_id
        and (phase = $tokens or ($tokens = 'all' and phase in ('prompt', 'generated')))
),
counted as (
    select request_id, coalesce(names[labels['subject']], names[domain], domain) as domain
    from requests, renamed
    where run_id = $run_id
        and status = 'complete'
        and request_id in (select request_id from recorded)
)
select
    request_id,
    row_number() over (order by request_id) - 1 as request_number,
    domain,
    dense_rank() over (order by domain) - 1 as domain_number
from counted
order by request_number
