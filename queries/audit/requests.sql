-- audit/requests: complete requests that have recorded tokens in a scope, by their domains.
--
-- reads   requests, usage
-- binds   $run_id
--         $tokens: last-prompt, prompt, generated, or all (prompt and generated)
--         $domains: JSON object {old label: new domain}; a request is looked up by its label
--         `subject`, then by its domain, and else keeps its domain; '{}' changes nothing
-- yields  request_id, domain
-- order   request_id
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
select request_id, domain
from counted
order by request_id
