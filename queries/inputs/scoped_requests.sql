-- inputs/scoped_requests: the requests that count, by domain.
--
-- Complete ones with recorded tokens in the scope. Requests without a domain are left out where
-- others have one. Where requests are drawn anew, one may be there several times under other ids;
-- `origin` is then the request it is a copy of.
--
-- reads   requests, usage, asked
-- binds   $domains: JSON object {old label: new domain}; a request is looked up by its label
--         `subject`, then by its domain, and else keeps its domain; '{}' changes nothing
-- yields  request_id, origin, domain, num_prompt_tokens [tokens]
-- order   request_id
with renamed as (
    select $domains::json::map(varchar, varchar) as names
),
recorded as (
    select distinct request_id
    from usage
    join asked using (run_id)
    where phase = tokens or (tokens = 'all' and phase in ('prompt', 'generated'))
),
counted as (
    select
        request_id,
        coalesce(names[labels['subject']], names[domain], domain) as domain,
        num_prompt_tokens
    from requests
    join asked using (run_id)
    cross join renamed
    where status = 'complete' and request_id in (select request_id from recorded)
)
select request_id, request_id as origin, domain, num_prompt_tokens
from counted
where domain <> 'none' or not exists (select 1 from counted where domain <> 'none')
order by request_id
