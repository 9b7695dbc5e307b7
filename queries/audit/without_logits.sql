-- audit/without_logits: complete requests that have routing in a scope, but not all its logits.
--
-- reads   usage, requests, router_logits
-- binds   $run_id
--         $tokens: last-prompt, prompt, generated, or all (prompt and generated)
-- yields  num_requests [requests with tokens in the scope], num_without [those of them that lack
--         the logits of a token and layer]
-- order   one row
with routed as (
    select usage.request_id, sum(usage.num_tokens) as num_rows
    from usage
    join requests on usage.run_id = requests.run_id and usage.request_id = requests.request_id
    where usage.run_id = $run_id
        and requests.status = 'complete'
        and (phase = $tokens or ($tokens = 'all' and phase in ('prompt', 'generated')))
    group by usage.request_id
),
scored as (
    select router_logits.request_id, count(*) as num_rows
    from router_logits
    join requests
        on router_logits.run_id = requests.run_id
        and router_logits.request_id = requests.request_id
    where router_logits.run_id = $run_id
        and (
            $tokens = 'all'
            or ($tokens = 'prompt' and position < num_prompt_tokens)
            or ($tokens = 'generated' and position >= num_prompt_tokens)
            or ($tokens = 'last-prompt' and position = num_prompt_tokens - 1)
        )
    group by router_logits.request_id
)
select
    count(*) as num_requests,
    count(*) - count(scored.num_rows) filter (where scored.num_rows = routed.num_rows)
        as num_without
from routed
left join scored on routed.request_id = scored.request_id
