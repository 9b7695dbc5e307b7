-- verify/tokens: complete requests with other tokens or phases than `requests` says.
--
-- Rows of tokens that are not the prompt and what followed, and rows of routing that have no token
-- or another phase than it.
--
-- reads   requests, routing, tokens
-- binds   $run_id
-- yields  request_id, layer_id, detail
-- order   request_id, layer_id, detail
with found as (
    select
        request_id,
        count(*) as num_rows,
        min(position) as first,
        max(position) as last,
        count(*) filter (where phase = 'prompt') as num_prompt
    from tokens
    where run_id = $run_id
    group by request_id
),
described as (
    select request_id, num_prompt_tokens, num_prompt_tokens + num_generated_tokens as num_tokens
    from requests
    where run_id = $run_id and status = 'complete'
)
select
    request_id,
    null::smallint as layer_id,
    coalesce(num_rows, 0) || ' rows of tokens, ' || coalesce(num_prompt, 0)
        || ' of the prompt, where requests says ' || num_tokens || ' and ' || num_prompt_tokens
        as detail
from described
left join found using (request_id)
where coalesce(num_rows, 0) <> num_tokens
    or coalesce(num_prompt, 0) <> num_prompt_tokens
    or first <> 0
    or last <> num_tokens - 1
union all
select
    request_id,
    layer_id,
    count(*) || ' rows of routing with a phase or position that the request does not have'
from routing
join described using (request_id)
where run_id = $run_id
    and (
        position < 0
        or position >= num_tokens
        or phase <> if(position < num_prompt_tokens, 'prompt', 'generated')
    )
group by request_id, layer_id
order by request_id, layer_id, detail
