-- domain_requests: complete requests of each domain that have recorded tokens in a scope.
--
-- reads   requests, usage
-- binds   $run_id
--         $tokens: last-prompt, prompt, generated, or all (prompt and generated)
--         $domains: JSON object {old label: new domain}; a request is looked up by its label
--         `subject`, then by its domain, and else keeps its domain; '{}' changes nothing
-- yields  domain, num_requests [requests], num_moved [requests given a domain by $domains],
--         num_prompt_tokens [tokens], num_cached_tokens [prompt tokens answered from the prefix
--         cache, which have no routing rows]
-- order   domain
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
    select
        requests.domain,
        coalesce(names[labels['subject']], names[domain]) as new_domain,
        num_prompt_tokens,
        cached_prefix_tokens
    from requests, renamed
    where run_id = $run_id
        and status = 'complete'
        and request_id in (select request_id from recorded)
)
select
    coalesce(new_domain, domain) as domain,
    count(*) as num_requests,
    count(new_domain) as num_moved,
    sum(num_prompt_tokens)::bigint as num_prompt_tokens,
    sum(cached_prefix_tokens)::bigint as num_cached_tokens
from counted
group by 1
order by 1
